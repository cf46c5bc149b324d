"""What an experiment's runs are scored by, and on what."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

from gessl.data.registry import Dataset, dataset, dataset_names
from gessl.data.supply import supply
from gessl.errors import UserError
from gessl.grid.misfits import misfits_of_protocol
from gessl.grid.reading import Fault, Findings, Layer, unknown
from gessl.grid.values import stray_protocol_files, tried_protocol
from gessl.nodes import Tree
from gessl.protocols import protocol_names
from gessl.protocols.contract import ABILITIES, Protocol, can_score
from gessl.report.plan import Layout

OWN = "own"  # stands for the data set that a run was trained on
DEFAULT = (
    "linear/wmse-v1",
    "knn/5nn-euclid",
    "fewshot/proto-v1",
    "scarce/linear-v1",
    "sigma/onehot",
)
"""What runs are scored by where an experiment says nothing."""
Asked = str | Tree
"""As written: the id of a protocol, or a mapping with `protocol`, perhaps `on`, and settings."""


class Evaluation(NamedTuple):
    """A protocol, the data sets that runs are scored on, and its place in the experiment's list."""

    protocol: Protocol
    on: tuple[str, ...]
    place: int

    def targets(self, own: str) -> tuple[str, ...]:
        """The data sets for runs that were trained on `own`."""
        return tuple(own if name == OWN else name for name in self.on)


def evaluations(asked: Sequence[Asked], findings: Findings) -> tuple[Evaluation, ...]:
    """The evaluations that are asked for; what is wrong is noted and left out."""
    for line in stray_protocol_files():
        findings.add(("evaluation",), line)
    if not asked:
        findings.add(("evaluation",), f"names no protocol; there is {DEFAULT[0]}, for one")
    found: list[Evaluation] = []
    for place, entry in enumerate(asked):
        evaluation = _evaluation(entry, ("evaluation", place), findings)
        if evaluation is None:
            continue
        for other in found:
            if other.protocol.id == evaluation.protocol.id and {*other.on} & {*evaluation.on}:
                findings.add(
                    ("evaluation", place), f"{other.protocol.id} is named twice for the same data; name it once"
                )
        found.append(evaluation)
    return tuple(found)


def _evaluation(entry: Asked, base: tuple[str | int, ...], findings: Findings) -> Evaluation | None:
    given: dict[str, Any] = {"protocol": entry} if isinstance(entry, str) else dict(entry)
    name, on = given.pop("protocol", None), given.pop("on", [OWN])
    if not isinstance(name, str):
        findings.add(base, "needs the id of a protocol, or a mapping with the key `protocol`")
        return None
    try:
        protocol, faults = tried_protocol(name, given)
    except UserError as error:
        for line in error.args:
            findings.add(base, line)
        return None
    findings.extend(faults, Layer(base))
    on = [on] if isinstance(on, str) else on
    known = [OWN, *dataset_names()]
    if not isinstance(on, list | tuple) or not on or len(set(map(str, on))) < len(on):
        findings.add((*base, "on"), f"must name data sets (or {OWN!r}), each once, got {on!r:.100}")
        return None
    if wrong := [name for name in on if name not in known]:
        findings.add((*base, "on"), unknown("data set", str(wrong[0]), known))
        return None
    return Evaluation(protocol, tuple(on), int(base[-1])) if protocol is not None else None


def check_evaluations(found: Sequence[Evaluation], own: Sequence[Dataset], findings: Findings) -> None:
    """Note what the data cannot give that runs are to be scored on."""
    for evaluation in found:
        where = ("evaluation", evaluation.place)
        for fault in dict.fromkeys(_faults(evaluation, own)):
            findings.misfit(fault, Layer(where), otherwise=where)


def _faults(evaluation: Evaluation, own: Sequence[Dataset]) -> Iterator[Fault]:
    for trained in own:
        for name in evaluation.targets(trained.name):
            try:
                data = trained if name == trained.name else dataset(name)
            except UserError as error:
                yield from (Fault((("on",),), line) for line in error.args)
                continue
            yield from misfits_of_protocol(evaluation.protocol, data, supply(data), trained.channels)


def by_target(
    asking: Iterable[tuple[Sequence[Evaluation], Sequence[str]]], abilities: Set[str] = ABILITIES
) -> Mapping[str, Mapping[str, Protocol]]:
    """Protocols by id, by target, for what is scored, of all experiments that ask for it.

    Args:
        asking: of each of them, the evaluations, and what `own` stands for.
        abilities: of what is scored; protocols that want another are left out.

    Raises:
        UserError: two of them ask for one protocol on one target with other settings.
    """
    found: dict[str, dict[str, Protocol]] = {}
    pairs = ((each, own) for evaluations, owns in asking for each in evaluations for own in owns)
    for evaluation, own in pairs:
        if not can_score(evaluation.protocol, abilities):
            continue
        for target in evaluation.targets(own):
            protocol = evaluation.protocol
            if found.setdefault(target, {}).setdefault(protocol.id, protocol) != protocol:
                raise UserError(
                    f"two experiments score the same on {target} by {protocol.id}, each with other settings, and it is"
                    " scored once; give both the same"
                )
    # in one order, whoever asks
    return {target: dict(sorted(protocols.items())) for target, protocols in sorted(found.items())}


def check_layout(
    layout: Layout, variants: set[str], found: Sequence[Evaluation], datasets: Sequence[str], findings: Findings
) -> None:
    """Note rows and columns of the table in a paper's layout that nothing could fill.

    Columns of a family of protocols that is not asked for at all are no fault: a recipe's table serves experiments that
    score less, too (`scored_columns`).
    """
    for place, row in enumerate(layout.rows):
        if row.variant not in variants:
            findings.add(("table", "rows", place, "variant"), unknown("variant", row.variant, variants))
    ids = {each.protocol.id: list(each.protocol.cards()) for each in found}
    scored = {
        (target, name)
        for each in found
        for own in datasets
        for target in each.targets(own)
        for name in ids[each.protocol.id]
    }
    targets, names = {target for target, _ in scored}, {name for _, name in scored}
    for place, column in enumerate(layout.columns):
        at = ("table", "columns", place)
        wanted = [column.target] if column.target else list(datasets)
        lacking = [name for name in wanted if (name, column.protocol) not in scored]
        if column.target and column.target not in targets:
            findings.add((*at, "target"), unknown("data set that runs are scored on", column.target, targets))
        elif column.protocol not in names and _is_meant(column.protocol, names):
            findings.add((*at, "protocol"), unknown("score under `evaluation`", column.protocol, names))
        elif column.protocol in names and lacking:
            findings.add(at, f"runs are not scored on {lacking[0]} by {column.protocol}; add it to `evaluation`")


def _is_meant(name: str, scored: Iterable[str]) -> bool:
    """Whether the id of a score that there is not is a slip: its family is asked for, or there is none such."""
    family = name.split("/")[0]
    asked = {each.split("/")[0] for each in scored}
    return family in asked or family not in {each.split("/")[0] for each in protocol_names()}


def scored_columns(layout: Layout | None, found: Iterable[Evaluation]) -> Layout | None:
    """The layout without columns of what is not asked for; None where none is left."""
    if layout is None:
        return None
    names = {name for each in found for name in each.protocol.cards()}
    columns = tuple(column for column in layout.columns if column.protocol in names)
    return replace(layout, columns=columns) if columns else None
