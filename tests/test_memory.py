"""Memory that runs out is one line that says what to lower, in every step that takes much."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gessl.cli import main
from gessl.cluster.failed import read_failure
from gessl.errors import UserError, memory_for, out_of_memory
from gessl.grid.experiment import Experiment
from gessl.layout import tasks_dir

HUGE = 2**52


def by_python() -> None:
    raise MemoryError


def by_numpy() -> None:
    np.empty(HUGE, np.float64)


def by_torch() -> None:
    torch.empty(HUGE)


def by_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of 8 GiB.\nMore")


def by_python_that_forgets_to_say_so() -> None:
    raise SystemError("error return without exception set")


WAYS = (by_python, by_numpy, by_torch, by_cuda, by_python_that_forgets_to_say_so)


@pytest.mark.parametrize("way", WAYS)
def test_each_library_s_word_for_it_is_known(way: Callable[[], None]) -> None:
    with (
        pytest.raises(UserError, match=r"^a step: out of memory \(.+\); lower it$") as told,
        memory_for("a step", "lower it"),
    ):
        way()
    assert "\n" not in str(told.value)
    assert "GPU 0" not in str(told.value)


DEEP = """
import resource, sys
from pathlib import Path
from gessl.errors import MEMORY_ERRORS, out_of_memory

def deeper(depth):
    return deeper(depth)

sys.setrecursionlimit(10**9)
pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**22,) * 2)
try:
    deeper(1)
except MEMORY_ERRORS as error:
    sys.exit(0 if out_of_memory(error) else f"{type(error).__name__}: {error}")
"""


def test_python_s_word_for_a_call_without_room_is_known() -> None:
    """Python 3.11 says `SystemError: error return without exception set` here; later ones may say `MemoryError`."""
    met = subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert met.returncode == 0, met.stderr


def test_other_errors_go_through() -> None:
    assert not out_of_memory(SystemError("bad argument to internal function"))
    assert not out_of_memory(RuntimeError("shapes do not match"))
    assert not out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shapes"), memory_for("a step", "lower it"):
        raise RuntimeError("shapes do not match")


PLACES = {
    "pretrain": ("gessl.training.run.outer_gradient", "pretraining: out of memory (", "lower train.batch"),
    "evaluate": ("gessl.evaluation.step.embed", "evaluation: out of memory (", "lower efficiency.embed_batch"),
    "prepare": ("gessl.data.prepare._write_images", "digits: preparing: out of memory (", "free memory"),
    "tasks": (
        "gessl.protocols._episodic.draw_episodes",
        "digits-s0: drawing tasks: out of memory (",
        "lower the number of tasks",
    ),
    "report": ("gessl.report.step.collect", "out of memory; give this step more", ""),
}


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_every_verb_says_so_in_one_line_and_leaves_nothing_behind(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, new = (cell.id for cell in Experiment.load(Path("config/config.yaml")).runs()[:2])
    words = {"pretrain": [new], "evaluate": [run], "prepare": ["digits"], "tasks": ["digits", "0"], "report": []}
    assert main(["pretrain", run]) == 0
    before = files(prepared)
    for verb, (place, complaint, advice) in PLACES.items():
        for way in (by_numpy, by_torch):
            capsys.readouterr()
            with monkeypatch.context() as patch:
                if verb == "tasks":  # what is there is not drawn again
                    (tasks_dir("digits", 0) / "fewshot__proto_v1/record.json").unlink(missing_ok=True)
                patch.setattr(place, lambda *given, way=way, **more: way())
                assert main([verb, *words[verb]]) == 2, verb
            line = capsys.readouterr().err.splitlines()[-1]
            assert complaint in line
            assert advice in line
            if verb in {"pretrain", "evaluate"}:
                assert complaint in str(read_failure(words[verb][0]))
    left = {Path("work") / one / name for one in (run, new) for name in ("failed.json", "metrics.jsonl")}
    assert files(prepared) - before <= left


def test_a_trial_that_takes_too_much_is_left_out(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Experiment.load(Path("config/config.yaml")).runs()[0].id
    monkeypatch.setattr("gessl.training.run.try_out", lambda trial: by_torch())
    assert main(["pretrain", run]) == 0
    assert "too little memory to try simclr before the first step" in capsys.readouterr().err
