"""The `gessl` command: its arguments, and what a failure says."""

import argparse
import csv
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from gessl import verbs
from gessl.advice import in_the_way
from gessl.errors import Unfinished, UserError, out_of_memory, printable
from gessl.home import require_own_code
from gessl.notices import give_up, say

Add = Callable[..., argparse.ArgumentParser]
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
        say(str(error))
        return BAD_INPUT
    except Unfinished as notice:
        say(str(notice))
        return TRY_AGAIN
    except BrokenPipeError:  # the reader of our output (head, less) has had enough
        give_up(sys.stdout)
        return 0
    except OSError as error:
        if error.errno is None:  # not the system's word: a bug
            raise
        say(_words(error))
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        say("out of memory; give this step more, or free some, and start it again")
        return BAD_INPUT
    except (UnicodeDecodeError, csv.Error) as error:
        say(f"a file holds no text to be read ({error}); `gessl audit` names what was altered")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted; a run goes on from its last checkpoint when started again")
        return 130


def _words(error: OSError) -> str:
    """What the system has against a file, or against the output that was to be printed."""
    place, source = error.filename, traceback.extract_tb(error.__traceback__)[-1].filename
    if place is None and source in (__file__, verbs.__file__):  # which print
        give_up(sys.stdout)
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


def parser() -> argparse.ArgumentParser:
    """The command line: `gessl VERB …`."""
    top = argparse.ArgumentParser(prog="gessl", description="GeSSL experiments, from raw data to an audited report.")
    every = top.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(name: str, function: object, text: str, config: bool = False) -> argparse.ArgumentParser:
        sub = every.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(verb=function)
        if config:
            sub.add_argument("--config", type=Path, default=CONFIG, help="experiment file (default: %(default)s)")
        return sub

    _add_grids(add)
    _add_steps(add)
    _add_audit(add)
    _add_lineage(add)
    sub = add("track", verbs.track, "mirror results to MLflow, or do so while COMMAND runs", config=True)
    sub.add_argument("--rebuild", action="store_true", help="make the embedded store again from the files")
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    add("schema", verbs.schema, "print the JSON schema of experiment files")
    return top


def _add_grids(add: Add) -> None:
    sub = add(
        "check", verbs.check, "validate an experiment file and list its runs, or try a method's contract", config=True
    )
    sub.add_argument("--method", metavar="NAME", help="a base method, or package.module:Class of your own")
    sub.add_argument("--values", type=Path, metavar="FILE", help="with --method: a yaml of its hyper-parameters")
    sub = add("plan", verbs.plan, "what grids ask for: cells, runs, jobs, hours and disk, before anything starts")
    sub.add_argument("config", nargs="+", type=Path, help="experiment files, or batches of them")
    sub.add_argument("--json", action="store_true", help="print the plan as JSON")
    sub = add("status", verbs.status, "where a running grid stands, from its files")
    sub.add_argument(
        "config", nargs="?", type=Path, help="an experiment file or a batch (default: all grids that were started here)"
    )
    sub.add_argument("--json", action="store_true", help="print the status as JSON")


def _add_steps(add: Add) -> None:
    add("fetch", verbs.fetch, "get raw data as its pin says, or make the pin").add_argument("dataset")
    add("prepare", verbs.prepare, "raw data to arrays, index and card").add_argument("dataset")
    sub = add("tasks", verbs.tasks, "draw the task files of one data set and seed", config=True)
    sub.add_argument("dataset")
    sub.add_argument("seed", type=int)
    add("pretrain", verbs.pretrain, "train one run, from its last checkpoint if any", config=True).add_argument("run")
    add("evaluate", verbs.evaluate, "score a run by every protocol", config=True).add_argument("run")
    sub = add("export", verbs.export, "write a run's backbone as torchvision's own model loads it")
    sub.add_argument("run")
    sub.add_argument("out", type=Path, help="the safetensors file to write; its metadata says which model it is")
    add("report", verbs.report, "write the sigma-report of what is finished", config=True)


def _add_audit(add: Add) -> None:
    sub = add("audit", verbs.audit, "re-hash every file and follow every record to the raw data")
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


def _add_lineage(add: Add) -> None:
    sub = add("trace", verbs.trace, "show what made a number, run or file; exit code 1 if a check failed")
    sub.add_argument("id", help="id of a table cell, score, run or record, or a path")
    sub.add_argument("--json", action="store_true", help="print the lineage as JSON")
    sub = add("crate", verbs.crate, "write what is behind a report as one folder to hand on, a Provenance Run Crate")
    sub.add_argument("grid", help="name of the report")
    sub.add_argument("out", type=Path, help="the folder to write")
    sub = add("sign", verbs.sign, "audit the results and sign their head")
    sub.add_argument("key", type=Path, help="an SSH key that can sign: a private key, or a public one whose agent runs")
    sub = add(
        "replay", verbs.replay, "make a step again from its record and compare the bits; exit code 1 if they differ"
    )
    sub.add_argument("id", help="id of a run, score, cell or record, or a folder in results/")
    sub.add_argument(
        "--here", action="store_true", help="in the present environment, even if it is not the recorded one"
    )
    sub.add_argument("--json", action="store_true", help="print the outcome as JSON")
    sub = add("diff", verbs.diff, "show what differs between two runs, and in which results")
    sub.add_argument("first", help="id of a run, score, cell or record, or a folder in results/")
    sub.add_argument("second", help="another of the same step")
    sub.add_argument("--json", action="store_true", help="print the differences as JSON")
