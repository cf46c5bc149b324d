"""How far each planned run is, as the files tell, and which files a report reads of it."""

from pathlib import Path

from gessl.cluster.failed import failure_file
from gessl.layout import RECORD, data_dir, file_stem, run_dir, scores_dir
from gessl.registration.seal import study_files
from gessl.report.plan import PlannedRun, ReportPlan
from gessl.report.seen import seen_files
from gessl.tables.metrics import METRICS
from gessl.tables.scores import CARDS, OUTCOMES, SCORES

FINISHED, FAILED, UNSCORED, ABSENT = "finished", "failed", "not evaluated", "not run"


def run_state(run: PlannedRun) -> str:
    """`finished`, `failed`, `not evaluated` (not by all protocols) or `not run`, as the files tell."""
    trained = not run.trained or (run_dir(run.id) / RECORD).is_file()
    if trained and all((folder / RECORD).is_file() for folder in score_folders(run)):
        return FINISHED
    if failure_file(run.id).is_file():
        return FAILED
    return UNSCORED if trained and run.trained else ABSENT


def score_folders(run: PlannedRun) -> list[Path]:
    """Where the scores of a run lie, one folder for each target and protocol."""
    return [scores_dir(run.id, target) / file_stem(protocol) for target, protocol in run.scores]


def input_files(plan: ReportPlan) -> list[Path]:
    """Every file that `collect` will read, in the order of the plan, and those that the plan's references are from.

    Lineage records are read too but are no inputs: each input's entry already names the record that made it.
    """
    files = [path for name in plan.targets if (path := data_dir(name) / "card.json").is_file()]
    files += [*seen_files(plan), *(study_files(plan.grid) if plan.study else ())]
    files += [Path(name) for name in dict.fromkeys(reference.file for reference in plan.references)]
    for run in plan.runs:
        state = run_state(run)
        if state == FINISHED:
            if run.trained:
                files += [run_dir(run.id) / name for name in (METRICS, "config.json", "views.npy")]
            files += [folder / name for folder in score_folders(run) for name in (SCORES, OUTCOMES, CARDS)]
        elif state == FAILED:
            files.append(failure_file(run.id))
    return files
