"""The `gessl` command: one verb per step, thin; each imports only what it needs."""

import argparse
import csv
import errno
import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gessl.advice import in_the_way
from gessl.errors import Unfinished, UserError, out_of_memory, printable
from gessl.home import require_own_code
from gessl.layout import data_dir, pin, raw_dir, report_dir, run_dir, scores_dir, tasks_dir

if TYPE_CHECKING:
    from gessl.config import Experiment

CONFIG = Path("config/config.yaml")
BAD_INPUT = 2
TRY_AGAIN = os.EX_TEMPFAIL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; bad input prints one line and returns 2, a run told to stop returns 75."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the locale's encoding may have no sign for a σ, or for a name
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        require_own_code()
        code = int(options.verb(options) or 0)
        _flush()
        return code
    except UserError as error:
        _tell(str(error))
        return BAD_INPUT
    except Unfinished as notice:
        _tell(str(notice))
        return TRY_AGAIN
    except BrokenPipeError:  # the reader of our output (head, less) has had enough
        _give_up(sys.stdout)
        return 0
    except OSError as error:
        if error.errno is None:  # not the system's word: a bug
            raise
        _tell(_words(error))
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        _tell("out of memory; give this step more, or free some, and start it again")
        return BAD_INPUT
    except (UnicodeDecodeError, csv.Error) as error:
        _tell(f"a file holds no text to be read ({error}); `gessl audit` names what was altered")
        return BAD_INPUT
    except KeyboardInterrupt:
        _tell("interrupted; a run goes on from its last checkpoint when started again")
        return 130


def _tell(line: str) -> None:
    """Print to stderr; where that cannot be written, the exit code has to do."""
    try:
        if sys.stderr is not None:  # closed by the caller
            print(f"gessl: {line}", file=sys.stderr)
    except OSError:
        _give_up(sys.stderr)


def _words(error: OSError) -> str:
    """What the system has against a file, or against the output that was to be printed."""
    place = error.filename
    if place is None and traceback.extract_tb(error.__traceback__)[-1].filename == __file__:  # the verbs print here
        _give_up(sys.stdout)
        place = "standard output"
    obstacle = in_the_way(Path(os.fsdecode(place))) if isinstance(place, str | bytes) else ""
    if obstacle and error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOENT):
        return f"{printable(obstacle)} and start again"
    where = f"{printable(os.fsdecode(place))}: " if isinstance(place, str | bytes) else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    reason = f"cannot write ({error.strerror})" if full else error.strerror
    return f"{where}{reason}; fix that and start again"


def _flush() -> None:
    """Write now what Python would write when it ends, too late for a word about a full disk."""
    if sys.stdout is not None:  # closed by the caller
        sys.stdout.flush()


def _give_up(stream: TextIO) -> None:
    """Let nothing more be written to a stream that fails: Python would try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def parser() -> argparse.ArgumentParser:
    """The command line: `gessl VERB …`."""
    top = argparse.ArgumentParser(prog="gessl", description="GeSSL experiments, from raw data to an audited report.")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, function: object, text: str, config: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(verb=function)
        if config:
            sub.add_argument("--config", type=Path, default=CONFIG, help="experiment file (default: %(default)s)")
        return sub

    sub = verb("check", check, "validate an experiment file and list its runs, or try a method's contract", config=True)
    sub.add_argument("--method", metavar="NAME", help="a base method, or package.module:Class of your own")
    sub.add_argument("--values", type=Path, metavar="FILE", help="with --method: a yaml of its hyper-parameters")
    sub = verb("plan", plan, "what grids ask for: cells, runs, jobs, hours and disk, before anything starts")
    sub.add_argument("config", nargs="+", type=Path, help="experiment files, or batches of them")
    sub.add_argument("--json", action="store_true", help="print the plan as JSON")
    sub = verb("status", status, "where a running grid stands, from its files")
    sub.add_argument(
        "config", nargs="?", type=Path, help="an experiment file or a batch (default: all grids that were started here)"
    )
    sub.add_argument("--json", action="store_true", help="print the status as JSON")
    verb("fetch", fetch, "get raw data as its pin says, or make the pin").add_argument("dataset")
    verb("prepare", prepare, "raw data to arrays, index and card").add_argument("dataset")
    sub = verb("tasks", tasks, "draw the task files of one data set and seed", config=True)
    sub.add_argument("dataset")
    sub.add_argument("seed", type=int)
    verb("pretrain", pretrain, "train one run, from its last checkpoint if any", config=True).add_argument("run")
    verb("evaluate", evaluate, "score a run by every protocol", config=True).add_argument("run")
    sub = verb("export", export, "write a run's backbone as torchvision's own model loads it")
    sub.add_argument("run")
    sub.add_argument("out", type=Path, help="the safetensors file to write; its metadata says which model it is")
    verb("report", report, "write the sigma-report of what is finished", config=True)
    sub = verb("audit", audit, "re-hash every file and follow every record to the raw data")
    sub.epilog = (
        "exit code: 0 nothing found; 1 something altered, missing, orphaned, unverifiable, or stale by its inputs; "
        "2 bad input; 3 all as recorded, but made by other sources or in another environment than the present ones"
    )
    sub.add_argument(
        "path", nargs="?", type=Path, default=Path("results"), help="a project's root, or its results (default: here)"
    )
    sub.add_argument(
        "--config", type=Path, metavar="FILE", help="only what the reports of this experiment or batch are made of"
    )
    expected = sub.add_mutually_exclusive_group()
    expected.add_argument(
        "--head", metavar="HEX", help="the results must have this head, which an earlier audit printed"
    )
    expected.add_argument(
        "--signed", type=Path, metavar="SIGNERS", help="the results must have the head signed by one of these"
    )
    sub.add_argument(
        "--cached", action="store_true", help="do not read what your earlier audits read and nobody wrote to since"
    )
    sub.add_argument(
        "--environment", action="store_true", help="check the files of the installed packages, too, by their own lists"
    )
    sub.add_argument("--json", action="store_true", help="print the verdict as JSON, and what is wrong to stderr, too")
    sub = verb("trace", trace, "show what made a number, run or file; exit code 1 if a check failed")
    sub.add_argument("id", help="id of a table cell, score, run or record, or a path")
    sub.add_argument("--json", action="store_true", help="print the lineage as JSON")
    sub = verb("crate", crate, "write what is behind a report as one folder to hand on, a Provenance Run Crate")
    sub.add_argument("grid", help="name of the report")
    sub.add_argument("out", type=Path, help="the folder to write")
    sub = verb("sign", sign, "audit the results and sign their head")
    sub.add_argument("key", type=Path, help="an SSH key that can sign: a private key, or a public one whose agent runs")
    sub = verb("replay", replay, "make a step again from its record and compare the bits; exit code 1 if they differ")
    sub.add_argument("id", help="id of a run, score, cell or record, or a folder in results/")
    sub.add_argument(
        "--here", action="store_true", help="in the present environment, even if it is not the recorded one"
    )
    sub.add_argument("--json", action="store_true", help="print the outcome as JSON")
    sub = verb("diff", diff, "show what differs between two runs, and in which results")
    sub.add_argument("first", help="id of a run, score, cell or record, or a folder in results/")
    sub.add_argument("second", help="another of the same step")
    sub.add_argument("--json", action="store_true", help="print the differences as JSON")
    sub = verb("track", track, "mirror results to MLflow, or do so while COMMAND runs", config=True)
    sub.add_argument("--rebuild", action="store_true", help="make the embedded store again from the files")
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    verb("schema", schema, "print the JSON schema of experiment files")
    return top


def experiments(config: Path) -> "Mapping[str, Experiment]":
    """Those of an experiment file or a batch; what a batch skips is told."""
    from gessl.config import Batch

    batch = Batch.load([config])
    for line in batch.skipped:
        _tell(f"skipped: {line}")
    return batch.experiments


def check_method(name: str, values: Path | None) -> int:
    """Print each clause of the contract; 1 if one fails."""
    import torch

    from gessl.config.values import method_at
    from gessl.training.contract import report

    torch.set_num_threads(1)  # the network is tiny
    failed = 0
    for clause, problem in report(name, method_at(name, values)):
        print(f"✗ {clause}: {problem}" if problem else f"✓ {clause}")
        failed += bool(problem)
    return int(failed > 0)


def check(options: argparse.Namespace) -> int | None:
    if options.method is not None:
        return check_method(options.method, options.values)
    if options.values:
        raise UserError("--values: goes with --method; an experiment names its values itself")
    planned = [cell for experiment in experiments(options.config).values() for cell in experiment.runs()]
    for cell in planned:
        print(f"{cell.id}\t{cell.variant}")
    shared = len(planned) - len({cell.id for cell in planned})
    print(printable(f"{options.config}: valid; {len(planned)} cells, {shared} of them shared"), file=sys.stderr)
    return None


def plan(options: argparse.Namespace) -> None:
    import json

    from gessl.plan import format_plan
    from gessl.plan import plan as run

    found = run(options.config)
    print(json.dumps(found, indent=2) if options.json else format_plan(found))


def status(options: argparse.Namespace) -> None:
    import json

    from gessl.status import format_status
    from gessl.status import status as run

    found = run(options.config)
    print(json.dumps(found, indent=2) if options.json else format_status(found))


def fetch(options: argparse.Namespace) -> None:
    from gessl.data.fetch import fetch as run

    run(options.dataset)
    print(f"{raw_dir(options.dataset)}: as pinned by {pin(options.dataset)}")


def prepare(options: argparse.Namespace) -> None:
    from gessl.data.prepare import prepare as run

    run(options.dataset)
    print(data_dir(options.dataset))


def tasks(options: argparse.Namespace) -> None:
    from gessl.config import Batch
    from gessl.tasks.draw import draw

    draw(options.dataset, options.seed, Batch.load([options.config]).tasks(options.dataset))
    print(tasks_dir(options.dataset, options.seed))


def pretrain(options: argparse.Namespace) -> None:
    from gessl.config import Batch
    from gessl.training.pretrain import pretrain as run

    batch = Batch.load([options.config], of_data=())  # it takes images, and no labels
    run(options.run, batch.cell(options.run).science, batch.owner(options.run).efficiency)
    print(run_dir(options.run))


def evaluate(options: argparse.Namespace) -> None:
    from gessl.config import Batch
    from gessl.evaluation.step import evaluate as run
    from gessl.training.pretrain import set_up

    batch = Batch.load([options.config], of_data=("evaluation",))  # the tasks are drawn
    cell = batch.cell(options.run)
    science = cell.science
    run(
        options.run,
        science=cell.hash,
        dataset=science.dataset,
        method=science.method_name,
        seed=science.seed,
        settings=batch.evaluation(options.run),
        device=set_up(batch.owner(options.run).efficiency),
    )
    print(scores_dir(options.run))


def export(options: argparse.Namespace) -> None:
    from gessl.nets.export import export_backbone

    export_backbone(run_dir(options.run) / "encoder.safetensors", options.out)
    print(options.out)


def report(options: argparse.Namespace) -> None:
    from gessl.report.step import report as run
    from gessl.report.style import PAGE

    for name, experiment in experiments(options.config).items():
        run(experiment.report_plan())
        print(report_dir(name) / PAGE)


def audit(options: argparse.Namespace) -> int:
    import json

    from gessl.lineage.audit import audit as run
    from gessl.lineage.audit import format_verdict, verdict_json

    expected = options.head
    grids = experiments(options.config) if options.config else ()
    if options.signed:
        if grids:
            raise UserError("--signed: the head of all results is signed, not that of some; leave out --config")
        from gessl.lineage.signing import signed_head

        expected, signer = signed_head(options.path, options.signed)
        print(f"{expected}: signed by {signer}", file=sys.stderr)
    verdict = run(options.path, cached=options.cached, expected=expected, environment=options.environment, grids=grids)
    print(json.dumps(verdict_json(verdict), indent=2) if options.json else format_verdict(verdict))
    if options.json and not verdict.ok:
        print(format_verdict(verdict), file=sys.stderr)
    return verdict.exit_code


def trace(options: argparse.Namespace) -> int:
    import json

    from gessl.lineage.trace import format_tree, holds, lineage_tree

    tree = lineage_tree(options.id)
    print(json.dumps(tree, indent=2) if options.json else format_tree(tree))
    return 0 if holds(tree) else 1


def crate(options: argparse.Namespace) -> None:
    from gessl.lineage.rocrate import write_crate

    actions = write_crate(options.grid, options.out)
    print(f"{options.out}: {actions} actions")


def sign(options: argparse.Namespace) -> None:
    from gessl.lineage.signing import sign as run

    print(run(options.key))


def replay(options: argparse.Namespace) -> int:
    import json

    from gessl.lineage.replay import format_replay, replay_json
    from gessl.lineage.replay import replay as run

    outcome = run(options.id, here=options.here)
    print(json.dumps(replay_json(outcome), indent=2) if options.json else format_replay(outcome))
    return 0 if outcome.ok else 1


def diff(options: argparse.Namespace) -> int:
    import json

    from gessl.lineage.diff import diff as run
    from gessl.lineage.diff import diff_json, format_diff

    found = run(options.first, options.second)
    print(json.dumps(diff_json(found), indent=2) if options.json else format_diff(found))
    return int(bool(found["altered"]))


def track(options: argparse.Namespace) -> int:
    from gessl.tracking import TrackingPlan, follow, rebuild, sync

    command = options.command[options.command[:1] == ["--"] :]
    if options.command and not command:
        raise UserError("track: no command after --; give one, or leave out the --")
    plans = [
        TrackingPlan(name, tuple(dict.fromkeys(cell.id for cell in experiment.runs())))
        for name, experiment in experiments(options.config).items()
    ]
    if command and not options.rebuild:
        return follow(plans, command)
    for index, plan in enumerate(plans):
        print(rebuild(plan) if options.rebuild and not index else sync(plan))
    return 0


def schema(options: argparse.Namespace) -> None:
    from gessl.config import schema as text

    print(text(), end="")
