"""`gessl register`: what an experiment is to test, frozen before any of its test scores is made."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gessl.data.registry import dataset, recorded
from gessl.errors import UserError
from gessl.evaluation.spec import protocol_settings
from gessl.files import as_json
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.reading import unknown
from gessl.layout import RESULTS, pin
from gessl.notices import say
from gessl.registration.seal import is_registered, read_registration, registration_file, write_registration
from gessl.registration.study import Study
from gessl.tables.scores import SCORES, read_scores


def register(path: Path) -> tuple[Path, list[str]]:
    """Freeze the study of an experiment file; one that is registered already stays as it is.

    Returns:
        the file of the registration, and a line for each hypothesis.

    Raises:
        UserError: it has no study, has too few seeds for it, is registered with other content, or an arm was scored.
    """
    experiment = Experiment.load(path)
    study = experiment.study
    if study is None:
        raise UserError(f"{path}: has no `study`, so there is nothing to register; docs/studies.md shows one")
    if is_registered(experiment.name):
        _require_same(experiment, str(path))
    else:
        _require_unscored(experiment, str(path))
        _require_pairs(experiment, study, str(path))
        _require_measures(study, str(path))
        write_registration(experiment.name, registration(experiment), map(pin, _data(experiment)))
    return registration_file(experiment.name), list(_lines(experiment, study))


def require_registered(batch: ExperimentBatch) -> None:
    """Refuse to go on with a study that is not registered, or that was changed since.

    Raises:
        UserError: one of the experiments has such a study.
    """
    for name, experiment in batch.experiments.items():
        if experiment.study is None:
            continue
        if read_registration(name) is None:
            raise UserError(
                f"{name}: has a study that is not registered yet; gessl register FILE writes down what it is to test,"
                " before its scores are made"
            )
        _require_same(experiment, name)


def registration(experiment: Experiment) -> dict[str, Any]:
    """What is frozen: the study, the runs, their data, and how they are scored; JSON values."""
    assert experiment.study is not None
    found = {
        "experiment": experiment.name,
        "study": asdict(experiment.study),
        "pairs": experiment.study.pairs(),
        "seeds": experiment.seeds,
        "runs": list(dict.fromkeys(cell.id for cell in experiment.runs())),
        "data": {name: recorded(dataset(name)) for name in _data(experiment)},
        "evaluation": [
            {**protocol_settings(each.protocol), "on": [each.targets(own) for own in experiment.datasets]}
            for each in experiment.evaluations
        ],
    }
    frozen: dict[str, Any] = as_json(found)
    return frozen


def _data(experiment: Experiment) -> list[str]:
    """The data sets that runs are trained and scored on."""
    targets = (each.targets(own) for each in experiment.evaluations for own in experiment.datasets)
    return list(dict.fromkeys((*experiment.datasets, *itertools.chain(*targets))))


def _require_same(experiment: Experiment, where: str) -> None:
    now, then = registration(experiment), read_registration(experiment.name) or {}
    # how many pairs it takes follows from the study, and may be computed otherwise by a later version
    changed = [key for key in now if key != "pairs" and now[key] != then.get(key)]
    if changed:
        raise UserError(
            f"{where}: was changed after it was registered ({', '.join(changed)}); undo that, or give the new study"
            f" another name ({registration_file(experiment.name)} has the old one)"
        )


def _require_unscored(experiment: Experiment, where: str) -> None:
    runs = dict.fromkeys(cell.id for cell in experiment.runs())
    scored = [run for run in runs if any((RESULTS / "scores" / run).glob(f"*/*/{SCORES}"))]
    if scored:
        raise UserError(
            f"{where}: {len(scored)} of its {len(runs)} runs are scored already ({scored[0]}), so it is too late to say"
            " what their scores are to show; take seeds that nobody has looked at"
        )


def _require_pairs(experiment: Experiment, study: Study, where: str) -> None:
    seeds, lacking = len(experiment.seeds), []
    for one in study.hypotheses:
        pairs = one.pairs(study.level, study.power)
        if pairs is None or pairs > seeds:
            has = one.power(seeds, study.level) if seeds > 1 else 0.0
            lacking.append(
                f"{where}: study: {one.name}: if it is true, {seeds} seeds confirm it with probability {has:.2f};"
                f" {study.power:g} takes {'too many' if pairs is None else pairs}. Give"
                f"{'' if pairs is None else ' more seeds,'} a larger size, or a lower `power`"
            )
    if lacking:
        raise UserError(*lacking)


def _require_measures(study: Study, where: str) -> None:
    """Refuse tasks that a protocol does not report, as far as scores of other encoders on the same data say which."""
    wrong = []
    for one in study.hypotheses:
        measure = one.measure
        folders = [path.parent for path in (RESULTS / "scores").glob(f"*/{measure.target}/*/{SCORES}")]
        rows = [row for folder in folders for row in read_scores(folder) if row["protocol"] == measure.protocol]
        known = dict.fromkeys(f"{row['task']} {row['metric']}" for row in rows)
        asked = f"{measure.task} {measure.metric}"
        if not known:
            say(
                f"{one.name}: {measure.protocol} has not scored anything on {measure.target} here, so nobody knows"
                f" whether it reports {asked}; if it does not, the hypothesis stays undecided. Score a baseline first"
            )
        elif asked not in known:
            wrong.append(f"{where}: study: {one.name}: measure: {unknown('task and metric', asked, list(known))}")
    if wrong:
        raise UserError(*wrong)


def _lines(experiment: Experiment, study: Study) -> Iterator[str]:
    """Of each hypothesis, what it says, what it rests on, and what would refute it."""
    for one in study.hypotheses:
        enough = f"{one.pairs(study.level, study.power)} of {len(experiment.seeds)} pairs of seeds suffice"
        yield f"{one.name}: {one.says} ({one.measure.text}; {enough}; {one.refuted_if})"
