"""The verbs of the `gessl` command, one per step, thin; each imports only what it needs."""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from gessl.errors import UserError, printable
from gessl.layout import data_dir, pin, raw_dir, report_dir, run_dir, scores_dir, tasks_dir
from gessl.notices import say
from gessl.typed import read_typed, typed

if TYPE_CHECKING:
    from gessl.grid.batch import ExperimentBatch
    from gessl.grid.experiment import Experiment

T = TypeVar("T")


def batch_of(options: argparse.Namespace, scored: bool = True) -> "ExperimentBatch":
    """The experiment or batch that the options name, with what they set over it."""
    from gessl.grid.batch import ExperimentBatch

    return ExperimentBatch.load([options.config], scored=scored, sets=options.set)


def experiments(options: argparse.Namespace) -> "Mapping[str, Experiment]":
    """Those that the options name; says what a batch skips."""
    batch = batch_of(options)
    for line in batch.skipped:
        say(f"skipped: {line}")
    return batch.experiments


def read_spec(options: argparse.Namespace, make: Callable[[Any], T]) -> T:
    """A job's spec (`gessl.grid.specs`)."""
    if options.set:
        raise UserError("--set: goes with an experiment; a spec holds all settings already")
    return read_typed(options.spec, make, "start the workflow, which writes it")


def show(options: argparse.Namespace, found: Any, text: Callable[[Any], str], data: Any = None) -> None:
    """Print what was found: as JSON, if the options ask for it, by way of `data` if given; or else as `text`."""
    print(json.dumps(data(found) if data else found, indent=2) if options.json else text(found))


def check(options: argparse.Namespace) -> int | None:
    if options.method is not None:
        from gessl.grid.clauses import check_method

        return check_method(options.method, options.values)
    if options.values:
        raise UserError("--values: goes with --method; an experiment names its values itself")
    planned = [cell for experiment in experiments(options).values() for cell in experiment.runs()]
    for cell in planned:
        print(f"{cell.id}\t{cell.variant}")
    shared = len(planned) - len({cell.id for cell in planned})
    print(printable(f"{options.config}: valid; {len(planned)} cells, {shared} of them shared"), file=sys.stderr)
    return None


def list(options: argparse.Namespace) -> None:
    from gessl.grid.known import listing

    for line in listing(options.kind):
        print(printable(line))


def plan(options: argparse.Namespace) -> None:
    from gessl.grid import plan as module

    show(options, module.plan(options.config, options.budget, options.set), module.format_plan)


def time(options: argparse.Namespace) -> None:
    from gessl.grid.timing import time_experiment

    print(time_experiment(options.config, options.set)[0])


def register(options: argparse.Namespace) -> None:
    from gessl.grid.register import register as run

    file, lines = run(options.config)
    for line in (str(file), *lines):
        print(printable(line))


def unseal(options: argparse.Namespace) -> None:
    from gessl.registration.seal import unseal as run

    print(run(options.study))


def status(options: argparse.Namespace) -> None:
    from gessl.grid.screen import format_status
    from gessl.grid.status import status as run

    show(options, run(options.config), format_status)


def fetch(options: argparse.Namespace) -> None:
    from gessl.data.fetch import fetch as run

    run(options.dataset)
    print(f"{raw_dir(options.dataset)}: as pinned by {pin(options.dataset)}")


def prepare(options: argparse.Namespace) -> None:
    from gessl.data.prepare import prepare as run

    run(options.dataset)
    print(data_dir(options.dataset))


def has_spec(options: argparse.Namespace, name: str) -> bool:
    """Whether a spec is given, in place of the argument `name` and an experiment.

    Raises:
        UserError: neither is given, or both.
    """
    if (options.spec is None) == (getattr(options, name) is None):
        raise UserError(f"{options.verb.__name__}: name a {name}, or give --spec FILE: one of the two")
    return options.spec is not None


def tasks(options: argparse.Namespace) -> None:
    from gessl.evaluation.draw import draw
    from gessl.evaluation.spec import TasksSpec

    if has_spec(options, "dataset"):
        spec = read_spec(options, TasksSpec.of_plain)
    else:
        from gessl.grid.specs import tasks_spec

        spec = tasks_spec(batch_of(options), options.dataset, options.seed)
    draw(spec)
    print(tasks_dir(spec.dataset, spec.seed))


def pretrain(options: argparse.Namespace) -> None:
    from gessl.training.pretrain import pretrain as run
    from gessl.training.spec import PretrainSpec

    if has_spec(options, "run"):
        spec = read_spec(options, PretrainSpec.of_plain)
    else:
        from gessl.grid.specs import pretrain_spec

        spec = pretrain_spec(batch_of(options, scored=False), options.run)  # it takes images, and no labels
    run(spec.run, spec.science, spec.efficiency, spec.trunk)
    print(run_dir(spec.run))


def evaluate(options: argparse.Namespace) -> None:
    from gessl.cluster.machine import set_up
    from gessl.evaluation.spec import EvaluateSpec
    from gessl.evaluation.step import evaluate as run

    if has_spec(options, "run"):
        specs = [read_spec(options, EvaluateSpec.of_plain)]
    else:
        from gessl.grid.specs import evaluate_specs

        specs = evaluate_specs(batch_of(options), options.run, options.target)
    device = set_up(specs[0].efficiency)
    for spec in specs:
        run(spec, device)
        print(scores_dir(spec.subject.id, spec.target))


def tune_inner(options: argparse.Namespace) -> None:
    from gessl.training import tuning

    show(options, tuning.tune(options.run), tuning.format_tried, tuning.tried_json)


def export(options: argparse.Namespace) -> None:
    from gessl.nets.export import export_backbone

    export_backbone(run_dir(options.run) / "encoder.safetensors", options.out)
    print(options.out)


def embed(options: argparse.Namespace) -> None:
    from gessl.api.embed import embed as run

    print(printable(run(options.run, options.folder, options.out)))


def report(options: argparse.Namespace) -> None:
    from gessl.report.plan import ReportPlan
    from gessl.report.step import report as run
    from gessl.report.style import PAGE

    if options.spec is not None:
        plans = [read_spec(options, functools.partial(typed, ReportPlan))]
    else:
        plans = [experiment.report_plan() for experiment in experiments(options).values()]
    for plan in plans:
        run(plan)
        print(report_dir(plan.grid) / PAGE)


def audit(options: argparse.Namespace) -> int:
    from gessl.audit import audit as module

    expected = options.head
    if options.set and not options.config:
        raise UserError("--set: goes with --config")
    grids = (*(experiments(options) if options.config else ()), *(options.grid or ()))
    if options.signed:
        if grids:
            raise UserError("--signed: the head of all results is signed, not that of some; leave out --config, --grid")
        from gessl.audit.signing import signed_head

        expected, signer = signed_head(options.path, options.signed)
        print(f"{expected}: signed by {signer}", file=sys.stderr)
    verdict = module.audit(options.path, expected=expected, environment=options.environment, grids=grids)
    show(options, verdict, module.format_verdict, module.verdict_json)
    if options.json and not verdict.ok:
        print(module.format_verdict(verdict), file=sys.stderr)
    return verdict.exit_code


def trace(options: argparse.Namespace) -> int:
    from gessl.audit.trace import lineage_tree
    from gessl.audit.tree import format_tree, holds

    tree = lineage_tree(options.id)
    show(options, tree, format_tree)
    return 0 if holds(tree) else 1


def crate(options: argparse.Namespace) -> None:
    from gessl.audit.rocrate import write_crate

    print(f"{options.out}: {write_crate(options.grid, options.out)} actions")


def sign(options: argparse.Namespace) -> None:
    from gessl.audit.signing import sign as run

    print(run(options.key))


def replay(options: argparse.Namespace) -> int:
    from gessl.audit import replay as module

    outcome = module.replay(options.id, here=options.here)
    show(options, outcome, module.format_replay, module.replay_json)
    return int(not outcome.ok)


def diff(options: argparse.Namespace) -> int:
    from gessl.audit import diff as module

    found = module.diff(options.first, options.second)
    show(options, found, module.format_diff, module.diff_json)
    return int(bool(found["altered"]))


def track(options: argparse.Namespace) -> int:
    from gessl.tracking import TrackingPlan, follow, rebuild, sync

    command = options.command[options.command[:1] == ["--"] :]
    if options.command and not command:
        raise UserError("track: no command after --; give one, or leave out the --")
    plans = [TrackingPlan(name, experiment.scored) for name, experiment in experiments(options).items()]
    if command and not options.rebuild:
        return follow(plans, command)
    for index, plan in enumerate(plans):
        print(rebuild(plan) if options.rebuild and not index else sync(plan))
    return 0


def schema(options: argparse.Namespace) -> None:
    from gessl.grid.schema import schema as text

    print(text(), end="")
