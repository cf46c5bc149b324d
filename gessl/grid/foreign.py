"""Encoders from elsewhere in an experiment: subjects that are scored as runs are, and not trained."""

from collections.abc import Sequence

from gessl.encoders.entry import encoder
from gessl.errors import UserError
from gessl.evaluation.foreign import Foreign
from gessl.grid.reading import Findings
from gessl.identity import ELSEWHERE
from gessl.methods import method_names


def foreign(names: Sequence[str], seeds: Sequence[int], variants: Sequence[str], findings: Findings) -> list[Foreign]:
    """Every encoder under every seed; what is wrong with an entry is noted, and it is left out.

    Args:
        names: of the encoders.
        seeds: of the experiment.
        variants: of the experiment, none of which may be called as the encoders' column is.
        findings: takes in what is wrong.
    """
    if names and ELSEWHERE in variants:
        text = f"is what the column of encoders is called; call the variant otherwise than {ELSEWHERE!r}"
        findings.add(("variants", ELSEWHERE), text)
    found = []
    for place, name in enumerate(names):
        if name in names[:place]:
            findings.add(("encoders", place), f"{name!r} is named twice; name it once")
        elif name in method_names():
            findings.add(("encoders", place), f"{name!r} is a base method, too; rename the encoder's file")
        else:
            try:
                entry = encoder(name)
            except UserError as error:
                for line in error.args:
                    findings.add(("encoders", place), line)
            else:
                found += [Foreign(entry, seed) for seed in seeds]
    return found
