"""Several experiments as one: what they share is made once, and for all of them.

A batch is a file like an experiment's, with `experiments:` (paths, shell patterns allowed) in place of everything else.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from gessl.documents import Document, from_words, read_document
from gessl.errors import UserError
from gessl.evaluation.step import PROTOCOLS, EvaluationSettings
from gessl.grid.cells import PlannedScience
from gessl.grid.experiment import MISSING, OF_DATA, Experiment
from gessl.grid.reading import Findings, require, unknown
from gessl.nodes import Tree
from gessl.tasks.draw import TaskSettings

KEYS = ("experiments", "skip_invalid")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Experiments by name, and their runs by id.

    Attributes:
        experiments: in the order in which they were given.
        skipped: what is wrong with files that were to be skipped, a line for each fault.
        runs: every distinct run; the first cell that asks for it.
        owners: of each run, the names of the experiments that ask for it.
    """

    experiments: Mapping[str, Experiment]
    skipped: tuple[str, ...]
    runs: Mapping[str, PlannedScience]
    owners: Mapping[str, tuple[str, ...]]

    @classmethod
    def load(cls, paths: Iterable[Path], *, skip_invalid: bool = False, of_data: tuple[str, ...] = OF_DATA) -> Self:
        """The experiments in `paths`, which may be batches as well.

        Args:
            paths: of the files.
            skip_invalid: leave out files that are wrong, and note why.
            of_data: as for `Experiment.of`.

        Raises:
            UserError: a file is missing or wrong (a line for each), or two of them do not go together.
        """
        documents = [read_document(path, MISSING) for path in paths]
        return cls._of(documents, skip_invalid, of_data)

    @classmethod
    def merged(cls, paths: Iterable[Path], overrides: Tree) -> Self:
        """The experiment (or batch) that files make together, later ones over earlier ones, and `overrides` over all.

        As Snakemake merges its `--configfile`s and `--config`; but its reader keeps the last of two equal keys, and no
        lines.
        """
        documents = [read_document(path, MISSING) for path in paths]
        name = " ".join(document.source for document in documents) or "--config"
        whole = Document({}, name)
        for document in (*documents, from_words(overrides, "--config")):
            whole = whole.under(document)
        return cls._of([whole], False)

    @classmethod
    def parse(cls, tree: Tree, source: str) -> Self:
        """An experiment or a batch given as plain data; `source` names it in errors, which are those of `load`."""
        return cls._of([Document(tree, source)], False)

    @classmethod
    def _of(cls, documents: Iterable[Document], skip_invalid: bool, of_data: tuple[str, ...] = OF_DATA) -> Self:
        """From documents, each an experiment or a batch."""
        experiments, faults = _read(documents, skip_invalid, of_data)
        runs, owners = _runs(experiments.values())
        batch = cls(experiments, tuple(faults), runs, owners)
        for dataset in {name for experiment in experiments.values() for name in experiment.datasets}:
            batch.tasks(dataset)  # refuses what does not go together
        for asking in set(owners.values()):
            batch.scoring(asking)
        return batch

    def owner(self, run: str) -> Experiment:
        """The experiment that says with what resources `run` is made: the first that asks for it."""
        return self.experiments[self.owners[run][0]]

    def tasks(self, dataset: str) -> TaskSettings:
        """How many tasks are drawn of `dataset`.

        Raises:
            UserError: two experiments differ in them, or none has such a data set.
        """
        known = {name: name for experiment in self.experiments.values() for name in experiment.datasets}
        require(dataset, known, " and ".join(self.experiments), "data set")
        first, *others = (experiment for experiment in self.experiments.values() if dataset in experiment.datasets)
        for other in others:
            if other.tasks != first.tasks:
                raise UserError(
                    f"{first.name} and {other.name} share the data set {dataset} but not its tasks, which are drawn "
                    "once; give both the same"
                )
        return first.tasks

    def evaluation(self, run: str) -> EvaluationSettings:
        """How `run` is scored."""
        return self.scoring(self.owners[run])

    def scoring(self, names: tuple[str, ...]) -> EvaluationSettings:
        """How a run is scored for these experiments: by every protocol that one of them asks for.

        Raises:
            UserError: they differ in anything else.
        """
        first, *others = (self.experiments[name].evaluation for name in names)
        for name, other in zip(names[1:], others, strict=True):
            if dataclasses.replace(other, protocols=first.protocols) != first:
                raise UserError(
                    f"{names[0]} and {name} share runs but not evaluation (all but evaluation.protocols), and a run is "
                    "scored once; give both the same"
                )
        asked = {protocol for settings in (first, *others) for protocol in settings.protocols}
        # in one order, whoever else asks: a run that is scored alike is not scored again
        return dataclasses.replace(first, protocols=tuple(name for name in PROTOCOLS if name in asked))

    def listing(self) -> Tree:
        """What `gessl status` has to know, as JSON that it reads in no time: see `gessl.grid.status`."""
        return {
            name: {
                "title": experiment.title,
                "runs": {
                    cell.id: [cell.kind, cell.science.train.steps, *self._occupies(cell.id), cell.hash]
                    for cell in experiment.runs()
                },
            }
            for name, experiment in self.experiments.items()
        }

    def _occupies(self, run: str) -> tuple[int, int]:
        """GPUs and CPU threads of its pretraining."""
        owner = self.owner(run)
        return owner.resources.pretrain.gpu, owner.efficiency.threads

    def cell(self, run: str) -> PlannedScience:
        """The cell of one run.

        Raises:
            UserError: no experiment has such a run.
        """
        require(run, self.runs, " and ".join(self.experiments), "run")
        return self.runs[run]


def _read(
    documents: Iterable[Document], skip_invalid: bool, of_data: tuple[str, ...]
) -> tuple[dict[str, Experiment], list[str]]:
    """Experiments by name, and what is wrong with those that were skipped.

    Raises:
        UserError: a file is wrong and not to be skipped, or two experiments have one name.
    """
    members: dict[str, Document | Path] = {}
    for document in documents:
        if "experiments" in document.tree:
            paths, skips = _members(document)
            skip_invalid = skip_invalid or skips
            members |= {os.path.realpath(path): path for path in paths}
        else:
            members[os.path.realpath(document.source)] = document
    found: dict[str, Experiment] = {}
    sources: dict[str, str] = {}
    faults: list[str] = []
    for member in members.values():
        source = str(member) if isinstance(member, Path) else member.source
        try:
            document = read_document(member, MISSING) if isinstance(member, Path) else member
            experiment = Experiment.of(document, of_data)
        except UserError as error:
            faults += error.args
            continue
        named = sources.setdefault(experiment.name, source)
        if named != source:
            raise UserError(f"{source}: name: {named} is called {experiment.name!r}, too; rename one of them")
        found[experiment.name] = experiment
    if faults and not (skip_invalid and found):
        raise UserError(*faults)
    return found, faults


def _runs(experiments: Iterable[Experiment]) -> tuple[dict[str, PlannedScience], dict[str, tuple[str, ...]]]:
    """Every distinct run by its id, and the experiments that ask for each.

    Raises:
        UserError: two runs have one id.
    """
    runs: dict[str, PlannedScience] = {}
    owners: dict[str, tuple[str, ...]] = {}
    for experiment in experiments:
        for cell in experiment.runs():
            first = runs.setdefault(cell.id, cell)
            if first.hash != cell.hash:
                raise UserError(
                    f"{experiment.name}: {cell.id}: the id of two runs with other settings ({first.variant!r} and"
                    f" {cell.variant!r}); change a setting of one of them, if only in its last digit"
                )
            asking = owners.get(cell.id, ())
            owners[cell.id] = asking if experiment.name in asking else (*asking, experiment.name)
    return runs, owners


def _members(document: Document) -> tuple[list[Path], bool]:
    """The files of a batch, in the order given, patterns sorted; and whether wrong ones are skipped."""
    findings, tree = Findings(document), document.tree
    for key in tree.keys() - set(KEYS):
        findings.add((key,), unknown("key", key, list(KEYS)))
    skips = tree.get("skip_invalid", False)
    if not isinstance(skips, bool):
        findings.add(("skip_invalid",), f"must be true or false, got {skips!r:.100}")
    patterns: Any = tree["experiments"]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list) or not patterns or not all(map(_is_path, patterns)):
        findings.add(("experiments",), f"must be a list of paths, got {patterns!r:.100}")
        patterns = []
    paths: dict[Path, None] = {}
    for pattern in patterns:
        try:
            paths |= dict.fromkeys(_matches(pattern))
        except ValueError as error:
            findings.add(("experiments",), str(error))
    findings.stop()
    return list(paths), bool(skips)


def _is_path(pattern: Any) -> bool:
    return isinstance(pattern, str) and "\0" not in pattern


def _matches(pattern: str) -> Iterable[Path]:
    """Files that a shell pattern stands for.

    Raises:
        ValueError: none, or it is no pattern.
    """
    if not any(mark in pattern for mark in "*?["):
        return [Path(pattern)]
    path = Path(pattern)
    try:
        found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    except (ValueError, NotImplementedError, IndexError) as error:
        raise ValueError(f"{pattern!r} is no pattern ({error})") from None
    found = [path for path in found if not path.is_dir() and not path.name.startswith(".")]  # as a shell has it
    if not found:
        raise ValueError(f"no file matches {pattern!r}")
    return found
