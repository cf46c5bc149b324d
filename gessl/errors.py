"""The exceptions that a user is meant to read."""


def printable(text: str) -> str:
    """`text` as one line: what is no visible character, such as a line feed in a name, is spelt out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class UserError(Exception):
    """Bad input: the message is one line that says what is wrong, where, and how to mend it; several faults, as many.

    `gessl` prints it without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        return "\n".join(printable(str(line)) for line in self.args)


class Unfinished(Exception):  # noqa: N818  (it is no error)
    """Nothing is wrong, but a run is not at its end: the message is one line, and the same command goes on with it.

    `gessl` prints it without a traceback and exits with code 75, which tells a scheduler to try again (EX_TEMPFAIL).
    """
