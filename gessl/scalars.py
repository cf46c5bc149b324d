"""What a scalar without quotes means in a YAML file.

What two readers of YAML understand differently is refused: YAML 1.1, which Snakemake reads, takes `010` for eight,
`1:30` for ninety and `yes` for true; YAML 1.2 takes the first for ten and the others for text. One difference is not:
`1e-3` is a number here, as in JSON and YAML 1.2, and text in YAML 1.1.
"""

import re
from typing import Any

DIGITS = 300  # most of a number
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|[-+]?Infinity|NaN")


def _cases(word: str) -> tuple[str, ...]:
    return word, word.capitalize(), word.upper()


CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", *_cases("null"))),
    **dict.fromkeys(_cases("true"), True),
    **dict.fromkeys(_cases("false"), False),
}
SWITCHES = {each for word in ("yes", "no", "on", "off") for each in _cases(word)}
# octal, hexadecimal, binary; base 60; digits in groups; dates and times
ODD = re.compile(
    r"[-+]?0[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?0[xob][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(:[0-9]{1,2})+(\.[0-9_]*)?"
    r"|[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*\.[0-9]*_[0-9_]*([eE][-+]?[0-9]+)?"
    r"|\d{4}-\d{1,2}-\d{1,2}([Tt \t].*)?"
)


def understood(text: str) -> tuple[Any, str]:
    """What a scalar without quotes means, and what is odd about it ("" where nothing is)."""
    if text in CONSTANTS:
        return CONSTANTS[text], ""
    if text in SWITCHES:
        return text, f"`{text}` is true or false to some readers of YAML, text to others; write true, false or quotes"
    if NOT_FINITE.fullmatch(text):
        return text, f"must be a finite number, got {text}"
    if WHOLE.fullmatch(text) or DECIMAL.fullmatch(text):
        if len(text) > DIGITS:
            return text, f"a number of {len(text)} characters; give fewer than {DIGITS}"
        value = int(text) if WHOLE.fullmatch(text) else float(text)
        return (value, "") if abs(value) < float("inf") else (text, f"must be a finite number, got {text}")
    if ODD.fullmatch(text):
        return text, f"readers of YAML differ on {text}; write a plain decimal number, or quotes if it is text"
    return text, ""


def joined(text: str) -> str:
    """Text with the two halves of a character that JSON escapes (`\\ud83d\\ude00`) as one."""
    return text if encodable(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def encodable(text: str) -> bool:
    """Whether text is whole characters, which UTF-8 can write."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)
