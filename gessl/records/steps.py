"""The steps of the pipeline: what makes each, and what its settings bring in."""

from typing import NamedTuple


class StepType(NamedTuple):
    """One step.

    Attributes:
        module: what makes it, as in the workflow's rules: what this imports re-runs the step. Empty for what people
            decide once, and nothing makes again.
        plug_ins: the sub-package of which its settings name a module; empty for none.
        key: of its settings, under which they do; with a dot, of settings within these.
        more: keys of its settings that bring in a module more, each with the module.
        replayable: whether its record says all that it takes to make it again.
    """

    module: str
    plug_ins: str = ""
    key: str = ""
    more: tuple[tuple[str, str], ...] = ()
    replayable: bool = True


STEPS = {
    "fetch": StepType("gessl.data.fetch", replayable=False),  # its publisher has the bytes
    "prepare": StepType("gessl.data.prepare", "data.readers", "dataset.reader"),
    "tasks": StepType("gessl.evaluation.draw", "protocols", "protocol"),
    "pretrain": StepType("gessl.training.pretrain", "methods", "method_name"),
    "register": StepType("", replayable=False),
    "unseal": StepType("gessl.registration.seal", replayable=False),  # it says that runs are there
    "evaluate": StepType(
        "gessl.evaluation.step",
        "protocols",
        "protocol",
        (("encoder", "gessl.evaluation.foreign"), ("baseline", "gessl.evaluation.baselines")),
    ),
    "bundle": StepType("gessl.records.bundle", replayable=False),  # it stands for others, and makes nothing
    "report": StepType("gessl.report.step"),
}
"""By the verb that commands and records name them by, in the order of the pipeline."""


def is_made_again(step: str) -> bool:
    """Whether what the step made is to be what it would make now; people decide some things once."""
    return step not in STEPS or bool(STEPS[step].module)
