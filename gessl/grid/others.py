"""What an experiment scores next to its runs and does not train: encoders from elsewhere, and baselines."""

from collections.abc import Sequence

from gessl.data.registry import Dataset
from gessl.encoders.entry import encoder
from gessl.errors import UserError
from gessl.evaluation.baselines import Baseline, Kind
from gessl.evaluation.foreign import Foreign
from gessl.grid.reading import Findings
from gessl.identity import BASELINE, ELSEWHERE
from gessl.methods import method_names
from gessl.nets.backbones import require_size


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


def baselines(
    kinds: Sequence[Kind], data: Sequence[Dataset], backbone: str, seeds: Sequence[int], findings: Findings
) -> list[Baseline]:
    """Every baseline on every data set under every seed; a backbone that cannot take its images is noted.

    Args:
        kinds: of baselines.
        data: the experiment's data sets.
        backbone: of the recipe, which the untrained ones have.
        seeds: of the experiment.
        findings: takes in what is wrong.
    """
    for entry in data if "untrained" in kinds else ():
        try:
            require_size(backbone, entry.size)
        except UserError as error:
            findings.add(("baselines", kinds.index("untrained")), f"untrained on {entry.name}: {error}")
    return [
        Baseline(kind, entry.name, "" if kind == "pixels" else backbone, seed)
        for entry in data
        for kind in kinds
        for seed in seeds
    ]


def check_variants(variants: Sequence[str], encoders: Sequence[str], kinds: Sequence[str], findings: Findings) -> None:
    """Note a variant that is called as the column of encoders, or of baselines, is."""
    for name, given, what in ((ELSEWHERE, encoders, "encoders"), (BASELINE, kinds, "baselines")):
        if given and name in variants:
            text = f"is what the column of {what} is called; call the variant otherwise than {name!r}"
            findings.add(("variants", name), text)
