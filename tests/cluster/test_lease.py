"""Leases between real processes: one holder at a time, whoever is killed, stopped or late."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from gessl.cluster import lease as lease_module
from gessl.cluster.lease import Holder, Lease
from gessl.errors import Unfinished, UserError

BEAT, MISSED = 0.05, 10
FORK = multiprocessing.get_context("fork")


def far_away() -> None:
    """This process is on a machine of its own: others know only whether it shows signs of life."""
    lease_module.machine = lambda: f"machine {os.getpid()}"  # type: ignore[assignment]


def quick(folder: Path, **words: object) -> Lease:
    return Lease(folder, "run", beat=BEAT, missed=MISSED, **words)  # type: ignore[arg-type]


def work(folder: Path, diary: Path, seconds: float, apart: bool) -> None:
    """Hold the lease for a while, and write a line at every look at it."""
    if apart:
        far_away()
    with quick(folder) as held:
        note = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            held.require()
            os.write(note, f"{time.monotonic():.6f} {os.getpid()}\n".encode())
            time.sleep(0.002)


def turns(diary: Path) -> list[int]:
    """Who wrote, one entry for each stretch of one writer."""
    found: list[int] = []
    for line in sorted(diary.read_text(encoding="utf-8").splitlines()):
        writer = int(line.split()[1])
        if found[-1:] != [writer]:
            found.append(writer)
    return found


@pytest.mark.parametrize("apart", [False, True], ids=["one-machine", "many-machines"])
@pytest.mark.parametrize("seed", range(3))
def test_of_many_exactly_one_writes_and_the_killed_are_followed(tmp_path: Path, seed: int, apart: bool) -> None:
    draw = random.Random(seed)
    folder, diary = tmp_path / "lease", tmp_path / "diary"
    diary.touch()
    processes = [FORK.Process(target=work, args=(folder, diary, 0.3, apart)) for _ in range(6)]
    for process in processes:
        process.start()
    until(diary.read_text)
    for _ in range(3):
        time.sleep(draw.uniform(0, 0.4))
        writer = int(diary.read_text(encoding="utf-8").splitlines()[-1].split()[1])
        next(process for process in processes if process.pid == writer).kill()  # in most cases while it writes
    for process in processes:
        process.join(60)
    ends = [process.exitcode for process in processes]
    assert set(ends) == {0, -signal.SIGKILL}, "nobody waits for ever, nobody is thrown out"
    order = turns(diary)
    assert len(order) == len(set(order)), "nobody wrote between the first and the last line of another"
    ended = {process.pid for process in processes if process.exitcode == 0}
    assert ended <= set(order), "each has had its turn"
    with quick(folder):
        pass
    assert not folder.exists(), "who leaves last clears up"


def test_one_that_was_stopped_notices_before_it_writes_again(tmp_path: Path) -> None:
    folder, diary = tmp_path / "lease", tmp_path / "diary"
    sleeper = FORK.Process(target=work, args=(folder, diary, 30, True))
    sleeper.start()
    until(lambda: diary.is_file() and diary.read_text(encoding="utf-8"))
    assert sleeper.pid is not None
    os.kill(sleeper.pid, signal.SIGSTOP)
    said: list[str] = []
    started = time.monotonic()
    with quick(folder, on_wait=said.append):
        assert time.monotonic() - started > BEAT * MISSED * 0.9, "not before it has missed its beats"
        before = diary.read_text(encoding="utf-8")
        os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.join(10)
        assert sleeper.exitcode == 1, "Unfinished"
        assert len(diary.read_text(encoding="utf-8")) - len(before) <= 40, "at most the line that it was about to write"
    assert len(said) == 1
    assert f"process {sleeper.pid} on" in said[0]


def test_a_living_holder_is_waited_for_however_long(tmp_path: Path) -> None:
    folder, diary = tmp_path / "lease", tmp_path / "diary"
    holder = FORK.Process(target=work, args=(folder, diary, BEAT * MISSED * 4, True))
    holder.start()
    until(lambda: diary.is_file() and diary.read_text(encoding="utf-8"))
    with quick(folder) as held:
        assert held.waited
        holder.join(1)
        assert holder.exitcode == 0, "it was left to its end"


def test_on_one_machine_a_dead_process_is_followed_at_once(tmp_path: Path) -> None:
    folder, diary = tmp_path / "lease", tmp_path / "diary"
    holder = FORK.Process(target=work, args=(folder, diary, 30, False))
    holder.start()
    until(lambda: diary.is_file() and diary.read_text(encoding="utf-8"))
    holder.kill()
    holder.join()
    started = time.monotonic()
    with Lease(folder, "run") as held:  # with the patience of minutes
        held.require()
    assert time.monotonic() - started < 5
    assert not folder.exists()


def test_a_number_used_again_is_no_sign_of_life() -> None:
    me = Holder("token", "host", os.getpid(), "", lease_module.machine(), lease_module.process_start(os.getpid()))
    assert not me.gone
    assert me._replace(started="1").gone
    assert not me._replace(started="1", machine="another").gone
    assert not Holder().gone


def test_a_job_told_to_stop_does_not_wait_on(tmp_path: Path) -> None:
    with quick(tmp_path / "lease"), pytest.raises(Unfinished, match=f"waited for process {os.getpid()} on"):
        quick(tmp_path / "lease", stop=lambda: True).__enter__()


def test_a_lease_that_ends_before_its_words_were_written_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "lease"
    folder.mkdir()
    (folder / "7.json").write_text("", encoding="utf-8")  # killed between creating and writing
    with quick(folder) as held:
        held.require()
        assert [path.name for path in folder.iterdir()] == ["8.json"]
        assert json.loads((folder / "8.json").read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_files_that_are_no_lease_s_do_not_disturb_it(tmp_path: Path) -> None:
    folder = tmp_path / "lease"
    folder.mkdir()
    for name, text in {"abc.json": b"", "007.json": b"", "-1.json": b"", "3.json": b'{"pid": "1"}'}.items():
        (folder / name).write_bytes(text)
    with quick(folder) as held:
        held.require()
        assert (folder / "4.json").is_file()


@pytest.mark.parametrize("text", [b"\xff", b"[]", b"1", b'{"who": 1}', b'{"machine": "m", "pid": "../x\\u0000"}'])
def test_what_no_holder_wrote_is_waited_out(tmp_path: Path, text: bytes) -> None:
    folder = tmp_path / "lease"
    folder.mkdir()
    (folder / "1.json").write_bytes(text)
    with quick(folder) as held:
        assert held.waited


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lease").touch()
    with pytest.raises(UserError, match=r"lease: must be a folder; move .* away"):
        quick(tmp_path / "lease").__enter__()


def test_one_that_cannot_take_it_rests_and_hears_that_it_is_to_stop(tmp_path: Path) -> None:
    (tmp_path / "lease").symlink_to("nowhere")
    asked: list[float] = []
    with pytest.raises(Unfinished, match="stopped while it waited for a job that has just started"):
        quick(tmp_path / "lease", stop=lambda: asked.append(time.monotonic()) or len(asked) > 3).__enter__()
    assert asked[-1] - asked[0] > 2 * BEAT / 5


def until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
