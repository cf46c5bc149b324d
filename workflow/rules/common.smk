"""The experiment, validated before any job runs, and what the rules share.

The rules take the makers' record.json among their inputs: a step that was run again, even to the same bytes, has a new
record, and the records behind it must name that one.
"""

import sys
from pathlib import Path

from gessl import layout
from gessl.config import Experiment
from gessl.data.pin import check_untouched
from gessl.errors import UserError
from gessl.files import atomic_json, sha256_file
from gessl.lineage.provenance import fingerprint


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
GESSL = f"{sys.executable} -m gessl"
# jobs read the experiment as it was validated here, `--config` overrides included
PLAN = layout.WORK / "plans" / f"{EXPERIMENT.name}.json"
atomic_json(PLAN, EXPERIMENT.model_dump(mode="json"))


def state(*modules):
    """What re-runs a step beside its inputs: the sources that it uses, and the environment's lock."""
    code = [fingerprint(module) for module in modules]
    return [*code, sha256_file(layout.LOCK)]


def resource(step, name):
    """A step's reservation from the experiment, or the default."""
    from gessl.config import Resources

    return getattr(EXPERIMENT.resources.get(step, Resources()), name)


wildcard_constraints:
    dataset="[a-z0-9-]+",
    seed=r"\d+",
    run=r"[\w+-]+",
