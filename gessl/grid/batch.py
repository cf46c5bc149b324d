"""Several experiments as one: what they share is made once, and for all of them.

A batch is a file like an experiment's, with `experiments:` (paths, shell patterns allowed) in place of everything else.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Self

from gessl.documents import Document, from_words, read_document
from gessl.errors import UserError
from gessl.evaluation.baselines import Baseline
from gessl.evaluation.foreign import Foreign
from gessl.evaluation.subjects import SubjectSpec, TrainedRun
from gessl.grid.cells import PlannedScience
from gessl.grid.evaluations import by_target
from gessl.grid.experiment import MISSING, Experiment
from gessl.grid.members import members_of
from gessl.grid.overrides import Override, overridden, read_overrides
from gessl.grid.trunks import goes_on
from gessl.identity import ELSEWHERE
from gessl.nodes import Tree
from gessl.protocols.contract import ABILITIES, Protocol, draws_tasks

SET = "set="  # what begins, in Snakemake's `--config`, a text that is meant as `--set`


@dataclasses.dataclass(frozen=True)
class ExperimentBatch:
    """Experiments by name, and what they score by id: their runs, encoders from elsewhere, and baselines.

    Attributes:
        experiments: in the order in which they were given.
        skipped: what is wrong with files that were to be skipped, a line for each fault.
        runs: every distinct run, trunks first; the first cell that asks for it.
        others: every encoder from elsewhere, and every baseline, under each seed.
        owners: of each of these, the names of the experiments that ask for it.
    """

    experiments: Mapping[str, Experiment]
    skipped: tuple[str, ...]
    runs: Mapping[str, PlannedScience]
    others: Mapping[str, Foreign | Baseline]
    owners: Mapping[str, tuple[str, ...]]

    @classmethod
    def load(
        cls, paths: Iterable[Path], *, skip_invalid: bool = False, scored: bool = True, sets: Iterable[str] = ()
    ) -> Self:
        """The experiments in `paths`, which may be batches as well.

        Args:
            paths: of the files.
            skip_invalid: leave out files that are wrong, and note why.
            scored: as for `Experiment.of`.
            sets: over each experiment (`gessl.grid.overrides`).

        Raises:
            UserError: a file is missing or wrong (a line for each), or two of them do not go together.
        """
        documents = [read_document(path, MISSING) for path in paths]
        return cls._of(documents, skip_invalid, scored, sets)

    @classmethod
    def merged(cls, paths: Iterable[Path], overrides: Tree, words: Iterable[str] = ()) -> Self:
        """The experiment (or batch) that files make together, later ones over earlier ones, and `overrides` over all.

        As Snakemake merges its `--configfile`s and `--config`; but its reader keeps the last of two equal keys, and no
        lines.

        Args:
            paths: of the files.
            overrides: as Snakemake has read `--config`.
            words: as they were given to it: those that begin with `set=` are for each experiment, as by `--set`.
        """
        sets = [word.removeprefix(SET) for word in words if word.startswith(SET)]
        overrides = {key: value for key, value in overrides.items() if f"{key}=" != SET}
        documents = [read_document(path, MISSING) for path in paths]
        name = " ".join(document.source for document in documents) or "--config"
        whole = Document({}, name)
        for document in (*documents, from_words(overrides, "--config")):
            whole = whole.under(document)
        return cls._of([whole], False, sets=sets)

    @classmethod
    def parse(cls, tree: Tree, source: str) -> Self:
        """An experiment or a batch given as plain data; `source` names it in errors, which are those of `load`."""
        return cls._of([Document(tree, source)], False)

    @classmethod
    def _of(
        cls, documents: Iterable[Document], skip_invalid: bool, scored: bool = True, sets: Iterable[str] = ()
    ) -> Self:
        """From documents, each an experiment or a batch."""
        experiments, faults = _read(documents, skip_invalid, scored, read_overrides(sets))
        runs, owners = _runs(experiments.values())
        others = {each.id: each for one in experiments.values() for each in one.others}
        for name in others:
            owners[name] = tuple(one.name for one in experiments.values() if name in {each.id for each in one.others})
        batch = cls(experiments, tuple(faults), runs, others, owners)
        batch.drawn  # noqa: B018 (refuses what does not go together)
        return batch

    @property
    def names(self) -> str:
        """Of the experiments, for people."""
        return " and ".join(self.experiments)

    def owner(self, name: str) -> Experiment:
        """The experiment that says with what resources a run is made or scored: the first that asks for it."""
        return self.experiments[self.owners[name][0]]

    @functools.cached_property
    def evaluations(self) -> dict[str, Mapping[str, Mapping[str, Protocol]]]:
        """How each run or encoder (by id) is scored for all who ask for it: protocols by id, by target.

        Raises:
            UserError: they ask for one protocol with different settings.
        """
        found: dict[tuple[tuple[str, ...], str, Set[str]], Mapping[str, Mapping[str, Protocol]]] = {}
        keys = {each: (asking, *self._own(each)) for each, asking in self.owners.items()}
        for asking, own, abilities in dict.fromkeys(keys.values()):  # few, that thousands of runs share
            asked = [
                (experiment.evaluations, experiment.datasets if own == ELSEWHERE else (own,))
                for experiment in map(self.experiments.__getitem__, asking)
            ]
            found[asking, own, abilities] = by_target(asked, abilities)
        return {each: {} if each in self.trunks else found[key] for each, key in keys.items()}

    @functools.cached_property
    def trunks(self) -> dict[str, PlannedScience]:
        """The runs that others go on from, by id: they are not scored."""
        return {run: cell for run, cell in self.runs.items() if cell.science.stops_at}

    @functools.cached_property
    def goes_on(self) -> dict[str, str]:
        """By the id of a run, the trunk that it goes on from (see `gessl.grid.trunks`)."""
        return goes_on(self.runs)

    @functools.cached_property
    def studies(self) -> dict[str, list[str]]:
        """By the id of a run, the experiments with a study that it is an arm of, where there are any."""
        found: dict[str, list[str]] = {}
        for name, experiment in self.experiments.items():
            for run in dict.fromkeys(cell.id for cell in experiment.runs()) if experiment.study else ():
                found.setdefault(run, []).append(name)
        return found

    def trained_or_scored(self, experiment: str) -> list[str]:
        """The ids of all that an experiment asks for: trunks, then what is scored."""
        trunks = [run for run in self.trunks if experiment in self.owners[run]]
        return [*trunks, *self.experiments[experiment].scored]

    def _own(self, name: str) -> tuple[str, Set[str]]:
        """The data set that `own` stands for, `ELSEWHERE` for an encoder from there; and the subject's abilities."""
        if name in self.runs:  # of thousands, none is made into a subject
            return self.runs[name].science.dataset, ABILITIES
        return self.others[name].dataset, self.others[name].abilities

    def subject(self, name: str) -> SubjectSpec:
        """What is scored under that id."""
        if name in self.others:
            return self.others[name]
        cell = self.runs[name]
        return TrainedRun(cell.id, cell.hash, cell.science.dataset, cell.science.method_name, cell.science.seed)

    def tasks(self, dataset: str, seed: int) -> Mapping[str, Protocol]:
        """The protocols that draw tasks of a data set under a seed, by id.

        Raises:
            UserError: none does.
        """
        if (dataset, seed) not in self.drawn:
            known = ", ".join(f"{name} with seed {number}" for name, number in self.drawn) or "none at all"
            raise UserError(f"{self.names}: no tasks of {dataset} with seed {seed} (of {known:.200})")
        return self.drawn[dataset, seed]

    @functools.cached_property
    def datasets(self) -> tuple[str, ...]:
        """Every data set that runs are trained or scored on."""
        trained = (cell.science.dataset for cell in self.runs.values())
        return tuple(dict.fromkeys((*trained, *(target for _, target in self.scored))))

    @functools.cached_property
    def scored(self) -> dict[tuple[str, str], Mapping[str, Protocol]]:
        """Protocols by id, by run (or encoder) and target."""
        return {(name, target): found for name, asked in self.evaluations.items() for target, found in asked.items()}

    @functools.cached_property
    def heavy(self) -> dict[tuple[str, str], list[str]]:
        """The ids of the protocols that are jobs of their own, by run (or encoder) and target, where there are any."""
        found = {key: [each.id for each in asked.values() if each.heavy] for key, asked in self.scored.items()}
        return {key: names for key, names in found.items() if names}

    @functools.cached_property
    def drawn(self) -> dict[tuple[str, int], dict[str, Protocol]]:
        """The protocols that draw tasks, by id, by data set and seed.

        Raises:
            UserError: two experiments ask for one protocol with different settings: its tasks are drawn once.
        """
        found: dict[tuple[str, int], dict[str, Protocol]] = {}
        for (scored, target), protocols in self.scored.items():
            key = target, self.subject(scored).seed
            for name, protocol in protocols.items():
                if not draws_tasks(protocol):
                    continue
                if found.setdefault(key, {}).setdefault(name, protocol) != protocol:
                    raise UserError(
                        f"two experiments score runs on {target} by {name}, each with other settings, but its tasks are"
                        " drawn once; give both the same"
                    )
        return {key: dict(sorted(protocols.items())) for key, protocols in found.items()}

    def listing(self) -> Tree:
        """What `gessl status` has to know, as JSON that it reads in no time: see `gessl.grid.status.Listed`."""
        return {
            name: {
                "title": experiment.title,
                "runs": {each: self._listed(each) for each in self.trained_or_scored(name)},
            }
            for name, experiment in self.experiments.items()
        }

    def _listed(self, name: str) -> list[Any]:
        cell, subject = self.runs.get(name), self.subject(name)
        kind, steps = (cell.kind, cell.science.end) if cell else (subject.method, 0)
        return [kind, steps, *self._occupies(name), subject.science, list(self.evaluations[name])]

    def _occupies(self, run: str) -> tuple[int, int]:
        """GPUs and CPU threads of its pretraining."""
        owner = self.owner(run)
        return owner.resources.pretrain.gpu, owner.efficiency.threads


def _read(
    documents: Iterable[Document], skip_invalid: bool, scored: bool, overrides: Sequence[Override]
) -> tuple[dict[str, Experiment], list[str]]:
    """Experiments by name, and what is wrong with those that were skipped.

    Raises:
        UserError: a file is wrong and not to be skipped, or two experiments have one name.
    """
    members: dict[str, Document | Path] = {}
    for document in documents:
        if "experiments" in document.tree:
            paths, skips = members_of(document)
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
            experiment = Experiment.of(overridden(document, overrides), scored)
        except UserError as error:
            faults += [line for line in error.args if line not in faults]
            continue
        named = sources.setdefault(experiment.name, source)
        if named != source:
            raise UserError(f"{source}: name: {named} is called {experiment.name!r}, too; rename one of them")
        found[experiment.name] = experiment
    if faults and not (skip_invalid and found):
        raise UserError(*faults)
    return found, faults


def _runs(experiments: Iterable[Experiment]) -> tuple[dict[str, PlannedScience], dict[str, tuple[str, ...]]]:
    """Every distinct run by its id, trunks first, and the experiments that ask for each.

    Raises:
        UserError: two runs have one id.
    """
    runs: dict[str, PlannedScience] = {}
    owners: dict[str, tuple[str, ...]] = {}
    asked = [(experiment, cell) for experiment in experiments for cell in experiment.runs()]
    trunks = [(experiment, cell.trunk) for experiment, cell in asked if cell.trunk]
    for experiment, cell in (*trunks, *asked):
        first = runs.setdefault(cell.id, cell)
        if first.hash != cell.hash:
            raise UserError(
                f"{experiment.name}: {cell.id}: the id of two runs with other settings ({first.variant!r} and"
                f" {cell.variant!r}); change a setting of one of them, if only in its last digit"
            )
        asking = owners.get(cell.id, ())
        owners[cell.id] = asking if experiment.name in asking else (*asking, experiment.name)
    return runs, owners
