"""The experiment, validated before any job runs, and what the rules share.

The rules take the makers' record.json among their inputs: a step that was run again, even to the same bytes, has a new
record, and the records behind it must name that one.
"""

import itertools
import sys
from pathlib import Path

from gessl import layout
from gessl.config import Experiment
from gessl.config import Resources as Reservation  # Snakemake has a Resources of its own
from gessl.data.pin import check_untouched
from gessl.errors import UserError
from gessl.files import atomic_text, sha256_file
from gessl.lineage.provenance import fingerprint

# the rules call `gessl` of this environment, whether it is activated or not
shell.prefix(f"PATH={Path(sys.executable).parent}:$PATH; ")


def stop(error):
    """Bad input: one line, exit code 2, no traceback."""
    print(f"gessl: {error}", file=sys.stderr)
    raise SystemExit(2)


try:
    EXPERIMENT = Experiment.parse(config, " ".join(map(str, workflow.configfiles)))
    for name in EXPERIMENT.datasets:
        check_untouched(name)
except UserError as error:
    stop(error)

# cells of several tables that agree in their science are one run
RUNS = {planned.id: planned for planned in EXPERIMENT.runs()}
REPORT = layout.report_dir(EXPERIMENT.name)
# jobs read the experiment as it was validated here, `--config` overrides included
PLAN = layout.WORK / "plans" / f"{EXPERIMENT.name}.json"
atomic_text(PLAN, EXPERIMENT.model_dump_json(indent=1))


def state(*modules):
    """What re-runs a step beside its inputs: the sources that it uses, and the environment's lock."""
    return [fingerprint(*modules), sha256_file(layout.LOCK)]


def resource(step, name):
    """A step's reservation from the experiment, or the default."""
    return getattr(EXPERIMENT.resources.get(step, Reservation()), name)


def prepared(run, part):
    """A file of the prepared data that `run` learns from."""
    return layout.data_dir(RUNS[run].science.dataset) / part


def task_file(run, part):
    """A task file of the data set and seed of `run`."""
    science = RUNS[run].science
    return layout.tasks_dir(science.dataset, science.seed) / part


def batches():
    """(name, runs) of each evaluation job: runs of one method, alone or under GeSSL."""
    size = EXPERIMENT.efficiency.evaluations_per_job
    for kind, runs in itertools.groupby(RUNS, key=lambda run: RUNS[run].kind):
        runs = list(runs)
        for first in range(0, len(runs), size):
            yield f"{kind}-{first // size}", runs[first : first + size]


def scores(runs, part):
    """That file of the scores of each of `runs`."""
    return [layout.scores_dir(run) / part for run in runs]


wildcard_constraints:
    dataset="[a-z0-9-]+",
    seed=r"\d+",
    run=r"[\w+-]+",
