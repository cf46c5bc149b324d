"""The experiments, validated before any job runs, and what the rules share.

Where a rule takes a maker's record.json among its inputs, it is because that is written last, so it stands for all that
the step made: at thousands of jobs every further input is felt.
"""

import functools
import gc
import itertools
import os
import re
import shlex
import sys
from pathlib import Path

from gessl import layout
from gessl.layout import file_stem, protocol_id
from gessl.grid.batch import ExperimentBatch
from gessl.data.pin import check_untouched
from gessl.errors import UserError
from gessl.home import for_libraries, require_own_code
from gessl.identity import ELSEWHERE, earlier_runs
from gessl.grid.register import require_registered
from gessl.grid.outdated import downstream, outdated, results
from gessl.grid.specs import SpecFiles
from gessl.grid.status import note_grid
from gessl.grid.turns import turns

# the rules call `gessl` of this environment, whether it is activated or not; doubled braces are none to Snakemake
PROGRAMS = shlex.quote(str(Path(sys.executable).parent)).replace("{", "{{").replace("}", "}}")
shell.prefix(f"PATH={PROGRAMS}:$PATH; ")
os.environ.update(for_libraries())

# a plan's objects are millions, and all stay: to look for cycles among them after every 700 new ones took a third of
# the time of a plan of 20,000 jobs
gc.set_threshold(100_000)


def stop(error):
    """Bad input: one line, exit code 2, no traceback."""
    print(f"gessl: {error}", file=sys.stderr)
    raise SystemExit(2)


OWN = Path(".snakemake") if Path(".snakemake").is_dir() else Path.cwd()
if not os.access(OWN, os.W_OK):
    stop(
        f"{OWN}: cannot be written, and Snakemake keeps notes there even for a dry run; copy the project to a place of your"
        " own (`gessl plan FILE` tells what would run, and writes nothing)"
    )

try:
    require_own_code(*sys.path)  # Snakemake itself finds the code next to the Snakefile, but its jobs may not
    SOURCE = " ".join(map(str, workflow.configfiles)) or "--config"
    # Snakemake's own reader lets the last of two equal keys win, and knows no lines
    GIVEN = workflow.config_settings
    BATCH = ExperimentBatch.merged(map(Path, workflow.configfiles), GIVEN.config, GIVEN.config_args or ())
    for name in BATCH.datasets:
        check_untouched(name)
    require_registered(BATCH)
except UserError as error:
    stop(error)
for line in BATCH.skipped:
    print(f"gessl: skipped: {line}", file=sys.stderr)

if line := earlier_runs():
    print(f"gessl: note: {line}", file=sys.stderr)

RUNS = BATCH.runs
TURNS = turns(RUNS, BATCH.goes_on)  # of trainings, at most 1
SOON = 2  # the priority of everything else, so that what is trained is seen


def words(text):
    """Text for a caption: on one line, and with no sign that reStructuredText takes for its own."""
    return re.sub(r"([^\w\s])", r"\\\1", " ".join(text.split()))


# what the captions in workflow/report/ say of each grid
config["grids"] = {
    name: {
        "title": words(one.title),
        "comparisons": [words(f"{each.treatment} against {each.control} ({each.label})") for each in one.comparisons],
    }
    for name, one in BATCH.experiments.items()
}

SPECS = SpecFiles(BATCH)


onstart:
    # only now: a dry run writes nothing
    try:
        for job in workflow.dag.needrun_jobs():
            if "spec" in job.params.keys():
                SPECS.write(job.params.spec)
        note_grid(SOURCE, BATCH.listing())  # for `gessl status`
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}; fix that and start again")


@functools.cache
def again():
    """The folders of what is made again, and of what comes of it; called while Snakemake builds the DAG.

    What our records call outdated (settings, sources, lock and inputs are in them) is forced, whatever Snakemake remembers:
    rules need no params for that, which thousands of jobs would feel. As `--forcerun` does, but for these files only,
    and without making them targets. Not in the process of a job, which makes what it was started for.
    """
    if not workflow.is_main_process:
        return set()
    dag, rules_forced = workflow.dag, {rule.name for rule in workflow.dag.forcerules}
    dag.forcefiles.update(str(folder / layout.RECORD) for folder in outdated(BATCH))
    forced = {made.job for made in results(BATCH) if made.step in rules_forced} if rules_forced else set()
    return downstream(BATCH, forced | {Path(file).parent for file in dag.forcefiles})


def by_record(*paths):
    """Results as inputs: `ancient` unless they are made again, for records decide what is current, and times do not.

    (From an ancient input that it makes again, Snakemake would not follow to what is made from it.)
    """
    made = again()
    return [path if made and Path(path).parent in made else ancient(path) for path in map(str, paths)]


def by_pin(dataset):
    """The pin as input; `ancient`, for its content decides, not its time."""
    again()
    return ancient(layout.pin(dataset))


def of_run(value, runs=BATCH.owners):
    """`value(run)` for a job's run; the value itself where all runs agree: thousands of calls by Snakemake are felt."""
    values = list(map(value, runs))
    return values[0] if all(other == values[0] for other in values) else lambda wildcards: value(wildcards.run)


def resource(step, name):
    """A step's reservation from the experiment that asks for the run, or the default."""
    return of_run(lambda run: getattr(getattr(BATCH.owner(run).resources, step), name))


def growing(mem_mb):
    """Memory that grows by half with each attempt of a job: too little of it may be what ended the last one.

    Up to twice only, for most attempts end by preemption. As it is where nothing is tried twice: a function for each of
    thousands of jobs is felt.
    """
    if not getattr(workflow.execution_settings, "retries", 0):
        return mem_mb
    return lambda wildcards, attempt: (mem_mb(wildcards) if callable(mem_mb) else mem_mb) * min(attempt + 1, 4) // 2


THREADS = of_run(lambda run: BATCH.owner(run).efficiency.threads)


def prepared(dataset):
    """The record of a prepared data set."""
    return f"{layout.data_dir(dataset)}/record.json"


def drawn(run, target):
    """The records of the tasks that a run (or an encoder) is scored on, if there are any."""
    key = target, BATCH.subject(run).seed
    return [f"{layout.tasks_dir(*key)}/record.json"] if key in BATCH.drawn else []


def goes_on(run):
    """The record of the trunk that a run goes on from, if it does.

    None of a finished run whose beginning a trunk is: a trunk that is added later must not have it started again.
    """
    if run not in BATCH.goes_on:
        return []
    folder, begins = layout.run_dir(run), not RUNS[run].science.start
    if begins and (folder / "record.json").is_file() and folder not in again():
        return []
    return [f"{layout.run_dir(BATCH.goes_on[run])}/record.json"]


def trained(run):
    """The record of a run's pretraining; of a baseline that of its data; none of an encoder from elsewhere."""
    if run in RUNS:
        return [f"{layout.run_dir(run)}/record.json"]
    own = BATCH.subject(run).dataset
    return [] if own == ELSEWHERE else [prepared(own)]


def unsealed(run):
    """The records that unseal the test data of the registered studies that a run is an arm of."""
    return [f"{layout.unsealed_dir(study)}/record.json" for study in BATCH.studies.get(run, ())]


def heavy(run, target):
    """The records of the protocols that are jobs of their own."""
    names = BATCH.heavy.get((run, target), ())
    return [f"{layout.scores_dir(run, target)}/{file_stem(name)}/record.json" for name in names]


def reports():
    """The records of the reports."""
    again()
    return [layout.report_dir(grid) / "record.json" for grid in BATCH.experiments]


def scores(runs):
    """The records of the scores of each of `runs`, on all of its targets."""
    return [f"{layout.scores_dir(run, target)}/record.json" for run in runs for target in BATCH.evaluations[run]]


def unscored():
    """Runs that lack scores, by grid; grids without such runs are left out."""
    lost = {run for run in BATCH.owners if not all(Path(path).is_file() for path in scores([run]))}
    found = {name: [run for run in one.scored if run in lost] for name, one in BATCH.experiments.items()}
    return {name: runs for name, runs in found.items() if runs}


def lost():
    """Runs without scores that a report is there without: Snakemake would not make them for its sake."""
    reported = (runs for name, runs in unscored().items() if (layout.report_dir(name) / "record.json").is_file())
    return list(dict.fromkeys(itertools.chain(*reported)))


wildcard_constraints:
    dataset="[a-z0-9-]+",
    target="[a-z0-9-]+",
    seed=r"\d+",
    run=r"[\w+-]+",
    grid="[a-z0-9-]+",
    stem=r"[a-z0-9_]+__[a-z0-9_]+",
