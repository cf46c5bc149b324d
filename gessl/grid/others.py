"""What an experiment scores next to its runs and does not train: encoders from elsewhere, and baselines."""

from collections.abc import Sequence

from gessl.encoders.entry import encoder
from gessl.errors import UserError
from gessl.evaluation.baselines import Baseline, Kind
from gessl.evaluation.foreign import Foreign
from gessl.grid.reading import Findings
from gessl.identity import BASELINE, ELSEWHERE
from gessl.methods import method_names


def foreign(names: Sequence[str], seeds: Sequence[int], findings: Findings) -> list[Foreign]:
    """Every encoder under every seed; what is wrong with an entry is noted, and it is left out.

    Args:
        names: of the encoders.
        seeds: of the experiment.
        findings: takes in what is wrong.
    """
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


def baselines(kinds: Sequence[Kind], datasets: Sequence[str], backbone: str, seeds: Sequence[int]) -> list[Baseline]:
    """Every baseline on every data set under every seed; those that are not trained have the recipe's backbone."""
    return [
        Baseline(kind, dataset, "" if kind == "pixels" else backbone, seed)
        for dataset in datasets
        for kind in dict.fromkeys(kinds)
        for seed in seeds
    ]


def check_variants(variants: Sequence[str], encoders: Sequence[str], kinds: Sequence[str], findings: Findings) -> None:
    """Note a variant that is called as the column of encoders, or of baselines, is."""
    for name, given, what in ((ELSEWHERE, encoders, "encoders"), (BASELINE, kinds, "baselines")):
        if given and name in variants:
            text = f"is what the column of {what} is called; call the variant otherwise than {name!r}"
            findings.add(("variants", name), text)
