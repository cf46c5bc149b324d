"""The `gessl` command: its arguments, and what a failure says."""

import argparse
import csv
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gessl import data_verbs, verbs
from gessl.advice import in_the_way
from gessl.errors import MEMORY_ERRORS, Unfinished, UserError, out_of_memory, printable
from gessl.home import require_own_code
from gessl.notices import give_up, say

BAD_INPUT = 2
TRY_AGAIN = os.EX_TEMPFAIL


class Argument(NamedTuple):
    """What `add_argument` takes; one of a verb's `rival` arguments may be given."""

    name: str
    options: dict[str, Any]
    rival: bool


def arg(name: str, text: str | None = None, *, rival: bool = False, **options: Any) -> Argument:
    """An argument, its help, and what else `add_argument` takes."""
    return Argument(name, {"help": text, **options}, rival)


def hours(text: str) -> float:
    """`200h` or `200`."""
    try:
        number = float(text.removesuffix("h"))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of hours, like 200h, got {text!r}")
    return number


FLAG: dict[str, Any] = {"action": "store_true"}
CONFIG = arg("--config", "experiment file (default: %(default)s)", type=Path, default=Path("config/config.yaml"))
SET = arg("--set", "over what experiments say, such as recipe.train.lr=0.01; may be given again", action="append",
          default=[], metavar="KEY=VALUE")  # fmt: skip
SPEC = arg("--spec", "what to do, as the workflow writes it (work/specs), in place of an experiment", type=Path,
           metavar="FILE")  # fmt: skip
DATASET, RUN = arg("dataset"), arg("run")
MADE = "id of a run, score, cell or record, or a folder in results/"
# verb, its help, its arguments; `gessl.verbs` has a function of each name, `gessl.data_verbs` those of `gessl data`
VERBS: tuple[tuple[str, str, tuple[Argument, ...]], ...] = (
    ("check", "validate an experiment file and list its runs, or try a method's contract", (
        CONFIG, SET,
        arg("--method", "a base method, or package.module:Class of your own", metavar="NAME"),
        arg("--values", "with --method: a yaml of its hyper-parameters", type=Path, metavar="FILE"))),
    ("list", "what an experiment can name: methods, protocols, datasets, views, backbones, encoders", (
        arg("kind", "one of these (default: how many there are of each)", nargs="?"),)),
    ("plan", "what grids ask for: cells, runs, jobs, hours and disk, before anything starts", (
        arg("config", "experiment files, or batches of them", nargs="+", type=Path), SET,
        arg("--budget", "name the experiments that fit in this many GPU-hours (core-hours without GPUs)",
            type=hours, metavar="HOURS"),
        arg("--json", "print the plan as JSON", **FLAG))),
    ("time", "time the steps of runs that are to be as long as others (seconds_of), and keep that in config/times", (
        arg("config", "an experiment file", type=Path), SET)),
    ("register", "freeze what an experiment with a study is to test, before any of its runs is scored", (
        arg("config", "an experiment file with a `study`", type=Path),)),
    ("unseal", "let the runs of a registered study be scored, now that all are trained", (
        arg("study", "name of the experiment"),)),
    ("status", "where a running grid stands, from its files", (
        arg("config", "an experiment file or a batch (default: all grids that were started here)", nargs="?",
            type=Path),
        arg("--json", "print the status as JSON", **FLAG))),
    ("fetch", "get raw data as its pin says, or make the pin", (DATASET,)),
    ("prepare", "raw data to arrays, index and card", (DATASET,)),
    ("data add", "make a data set of pictures of your own", (
        arg("name", "of the data set: lower-case letters, digits and hyphens"),
        arg("--folder", "class folders, or train/ and test/ with these, or pictures without labels", rival=True,
            type=Path, metavar="DIR"),
        arg("--table", "CSV or Parquet with a row for each picture", rival=True, type=Path, metavar="FILE"),
        arg("--arrays", "npz or npy of images, and of labels", rival=True, type=Path, metavar="FILE"),
        arg("--archive", "a zip or tar file of one of these", rival=True, type=Path, metavar="FILE"),
        *(arg(f"--{kind}", f"with a table: its column of {what}", metavar="COLUMN") for kind, what in (
            ("image", "paths, or of the pictures themselves"), ("label", "classes"),
            ("split", "train, val or test"), ("group", "what must not be torn apart, such as patients"))),
        arg("--no-labels", "take no folder for a class", **FLAG),
        arg("--how", "what becomes of the pictures' files (default: %(default)s, which leaves them as they are)",
            choices=("copy", "link", "move"), default="copy"),
        arg("--on-bad", "what to do about pictures that cannot be read (default: %(default)s)",
            choices=("refuse", "skip"), default="refuse"),
        arg("--size", "pixels of a side of views (default: the pictures' own, if all have one of at most 96, else 224)",
            type=int, metavar="N"),
        arg("--dry-run", "say what was found and what would be done, and do nothing", **FLAG))),
    ("data list", "every data set: whether it is here, its size, licence, and which experiments name it", ()),
    ("data verify", "compare raw data with their pins; exit code 1 if something differs", (
        arg("dataset", "default: all that are here", nargs="?"),)),
    ("data show", "write a page with some pictures of each class, and views of them", (
        DATASET, arg("--views", "a view policy, of which each picture gets one draw", metavar="NAME"),
        arg("--out", "the HTML file to write (default: work/show/<dataset>.html)", type=Path, metavar="FILE"))),
    ("tasks", "draw the tasks of one data set and seed", (
        CONFIG, SET, SPEC, arg("dataset", nargs="?"),
        arg("seed", "of the runs (default: %(default)s)", nargs="?", type=int, default=0))),
    ("pretrain", "train one run, from its last checkpoint if any", (CONFIG, SET, SPEC, arg("run", nargs="?"))),
    ("evaluate", "score a run or an encoder by the protocols that are not current", (
        CONFIG, SET, SPEC, arg("run", "a run of the experiment, or one of its encoders", nargs="?"),
        arg("target", "one of the data sets that it is scored on (default: all)", nargs="?"))),
    ("tune-inner", "find the cheapest inner loop whose gradient is that of a trained run's own", (
        RUN, arg("--json", "print what was tried as JSON", **FLAG))),
    ("export", "write a run's backbone as torchvision's own model loads it", (
        RUN, arg("out", "the safetensors file to write; its metadata says which model it is", type=Path))),
    ("embed", "write the features of the pictures in a folder, as a run's encoder gives them", (
        arg("run", "id of a run, or its folder"), arg("folder", "the pictures", type=Path),
        arg("--out", "the file to write: .npy, or .csv with the pictures' names (default: %(default)s)", type=Path,
            metavar="FILE", default=Path("features.npy")))),
    ("report", "write the sigma-report of what is finished", (CONFIG, SET, SPEC)),
    ("audit", "re-hash every file and follow every record to the raw data", (
        arg("path", "a project's root, or its results (default: here)", nargs="?", type=Path, default=Path("results")),
        arg("--config", "only what the reports of this experiment or batch are made of", type=Path, metavar="FILE"),
        SET, arg("--grid", "only what this report is made of; may be given again", action="append", metavar="NAME"),
        arg("--head", "the results must have this head, which an earlier audit printed", rival=True, metavar="HEX"),
        arg("--signed", "the results must have the head signed by one of these", rival=True, type=Path,
            metavar="SIGNERS"),
        arg("--environment", "check the files of the installed packages, too, by their own lists", **FLAG),
        arg("--json", "print the verdict as JSON, and what is wrong to stderr, too", **FLAG))),
    ("trace", "show what made a number, run or file; exit code 1 if a check failed", (
        arg("id", "id of a table cell, score, run or record, or a path"),
        arg("--json", "print the lineage as JSON", **FLAG))),
    ("crate", "write a report and all that it comes from as one folder to hand on, a Provenance Run Crate", (
        arg("grid", "name of the report"), arg("out", "the folder to write", type=Path))),
    ("sign", "audit the results and sign their head", (
        arg("key", "an SSH key that can sign: a private key, or a public one whose agent runs", type=Path),)),
    ("replay", "make a step again from its record and compare the bits; exit code 1 if they differ", (
        arg("id", MADE), arg("--here", "in the present environment, even if it is not the recorded one", **FLAG),
        arg("--json", "print the outcome as JSON", **FLAG))),
    ("diff", "show what differs between two runs, and in which results", (
        arg("first", MADE), arg("second", "another of the same step"),
        arg("--json", "print the differences as JSON", **FLAG))),
    ("track", "mirror results to MLflow, or do so while COMMAND runs", (
        CONFIG, SET, arg("--rebuild", "make the embedded store again from the files", **FLAG),
        arg("command", nargs=argparse.REMAINDER, metavar="-- COMMAND"))),
    ("schema", "print the JSON schema of experiment files", ()),
)  # fmt: skip
ONE_NEEDED = {"data add"}
"""Verbs of which one of the rival arguments must be given."""
FAMILIES = {"data": "data sets: your own, and those of the registry"}
EPILOGS = {
    "audit": "exit code: 0 nothing found; 1 something altered, missing, orphaned, unverifiable, or stale by its "
    "inputs; 2 bad input; 3 all as recorded, but made by other sources or in another environment than the present ones"
}


INTERRUPTED = {
    "pretrain": "the run goes on from its last checkpoint when started again",
    "data_add": "no picture is lost, and nothing is half-made; start it again",
}
"""What becomes of the work of a verb that is stopped by Ctrl-C, by its function."""
OTHERS_INTERRUPTED = "what is finished stays; start it again for the rest"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; bad input prints one line and returns 2, a run that was stopped returns 75."""
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
    except MEMORY_ERRORS as error:
        if not out_of_memory(error):
            raise
        say("out of memory; give this step more, or free some, and start it again")
        return BAD_INPUT
    except (UnicodeDecodeError, csv.Error) as error:
        say(f"a file holds no text to be read ({error}); `gessl audit` names what was altered")
        return BAD_INPUT
    except KeyboardInterrupt:
        say(f"interrupted; {INTERRUPTED.get(options.verb.__name__, OTHERS_INTERRUPTED)}")
        return 130


def _words(error: OSError) -> str:
    """What the system has against a file, or against the output that was to be printed."""
    place, source = error.filename, traceback.extract_tb(error.__traceback__)[-1].filename
    if place is None and source in (__file__, verbs.__file__, data_verbs.__file__):  # which print
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
    """The command line: `gessl VERB …`, or `gessl data VERB …`."""
    top = argparse.ArgumentParser(prog="gessl", description="GeSSL experiments, from raw data to an audited report.")
    every = {"": top.add_subparsers(title="verbs", metavar="VERB", required=True)}
    for name, text, arguments in VERBS:
        family, _, own = name.rpartition(" ")
        if family not in every:
            above = every[""].add_parser(family, help=FAMILIES[family], description=f"{FAMILIES[family].capitalize()}.")
            every[family] = above.add_subparsers(title="verbs", metavar="VERB", required=True)
        about = f"{text[0].upper()}{text[1:]}."
        sub = every[family].add_parser(own, help=text, description=about, epilog=EPILOGS.get(name))
        sub.set_defaults(verb=getattr(data_verbs if family else verbs, re.sub("[ -]", "_", name)))
        plain: argparse._ActionsContainer = sub
        rivals = plain
        if any(argument.rival for argument in arguments):
            rivals = sub.add_mutually_exclusive_group(required=name in ONE_NEEDED)
        for argument in arguments:
            (rivals if argument.rival else plain).add_argument(argument.name, **argument.options)
    return top
