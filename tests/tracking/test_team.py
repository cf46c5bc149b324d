"""A tracking server for a team: 32 writers at once lose nothing, and a server that dies in the middle costs nothing.

Run by `make test-team`; it installs Debian's PostgreSQL where there is none and this is root.
"""

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import mlflow.tracking
import pytest
from toy_grid import PLAN, evaluate, finish, train, write_report

from gessl.layout import run_dir
from gessl.tracking import follow, sync
from gessl.tracking.store import STORE
from tests.conftest import ROOT

pytestmark = pytest.mark.team
WRITERS = 32
FINISHED, GROWN = 50, 200  # steps of r0, and of r1, which grows while it is mirrored


def install() -> None:
    """PostgreSQL, or a skip that says why not."""
    if shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("no PostgreSQL here, and Debian's can be installed by root only")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
        done = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, encoding="utf-8", timeout=600)
    if done.returncode:
        pytest.skip(f"PostgreSQL cannot be installed: {done.stderr.strip().splitlines()[-1]}")


def documented(port: int) -> list[str]:
    """The command of docs/cluster.md, at another port."""
    (command,) = re.findall(
        r"```sh\n(workflow/mlflow-team .*)\n```", (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    )
    return str(command).replace("5000", str(port)).split()


class Server:
    """`workflow/mlflow-team` with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        with open(self.folder / "said.txt", "a", encoding="utf-8") as said:
            self._script = subprocess.Popen(
                documented(self.port),
                cwd=ROOT,
                env=os.environ | {"MLFLOW_TEAM": str(self.folder / "team")},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while not self._answers():
            assert self._script.poll() is None and time.monotonic() < deadline, (self.folder / "said.txt").read_text(
                encoding="utf-8"
            )
            time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._script.terminate()
        self._script.wait(60)

    def kill(self) -> None:
        """As a power cut does: the server, its workers and the database."""
        database = (self.folder / "team/postgres/postmaster.pid").read_text(encoding="utf-8").split()[0]
        backends = subprocess.run(["pgrep", "-P", database], capture_output=True, encoding="utf-8").stdout.split()
        os.killpg(self._script.pid, signal.SIGKILL)
        for process in (database, *backends):
            with contextlib.suppress(ProcessLookupError):  # it went with the others
                os.kill(int(process), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while Path("/proc", database).exists() and time.monotonic() < deadline:  # PostgreSQL asks whether it lives
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    install()
    folder = Path(tempfile.mkdtemp(prefix="team"))  # where the database's own user may go, unlike pytest's folders
    folder.chmod(0o755)
    try:
        with Server(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _of_the_team(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.chdir(tmp_path)


def write(folder: Path, number: int, together: Any) -> None:
    """One writer: a tree of its own with a grid of the same name as the others', mirrored while it grows."""
    os.chdir(folder)
    finish("r0", FINISHED, lr=float(number))
    train("r1", range(1, GROWN // 2 + 1))
    together.wait(120)
    sync(PLAN)
    train("r1", range(GROWN // 2 + 1, GROWN + 1))
    sync(PLAN)
    evaluate("r0", float(number))
    write_report()
    sync(PLAN)


def mirrored(folder: Path) -> dict[str, Any]:
    """What the server has of a tree: status, settings, scores, curve and artifacts of each run, by its name."""
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name(PLAN.grid)
    assert experiment is not None
    tree = (folder / STORE / "tree").read_text(encoding="utf-8").strip()
    found = {}
    runs = client.search_runs([experiment.experiment_id], f"tags.`gessl.tree` = '{tree}'")
    for run in runs:
        curve = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
        artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
        score = run.data.metrics.get("linear/wmse-v1/all/top-1 pct")
        found[str(run.info.run_name)] = (run.info.status, run.data.params.get("train.lr"), score, curve, artifacts)
    assert len(found) == len(runs), "a run is there twice"
    return found


def losses(steps: int) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in range(1, steps + 1)]


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(WRITERS)
    folders = [tmp_path / f"tree{number}" for number in range(WRITERS)]
    writers = []
    for number, folder in enumerate(folders):
        folder.mkdir()
        writers.append(fork.Process(target=write, args=(folder, number, together)))
        writers[-1].start()
    for writer in writers:
        writer.join(600)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    for number, folder in enumerate(folders):
        found = mirrored(folder)
        assert found.keys() == {"r0", "r1", "r0 on toy", "grid report"}
        parts = {"config.json", "record.json", "encoder.safetensors"}
        assert found["r0"] == ("FINISHED", str(float(number)), None, losses(FINISHED), parts)
        assert found["r1"][0] == "RUNNING"
        assert found["r1"][3] == losses(GROWN)
        assert found["r0 on toy"][2] == float(number)
        assert found["grid report"][4] == {"sigma-report.html", "record.json"}


TRAIN = """
import pathlib, sys, time
work = pathlib.Path("work/r1"); work.mkdir(parents=True)
for step in range(1, 21):
    with open(work / "metrics.jsonl", "a") as file:
        file.write('{"step": %d, "seconds": %f, "loss": %r}\\n' % (step, step / 4, 1 / step))
    if step == 10:
        pathlib.Path("half").touch()
        while not pathlib.Path("dead").exists():
            time.sleep(0.05)
sys.exit(7)
"""


def test_a_server_that_dies_in_the_middle_costs_nothing(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    finish("r0", FINISHED)
    sync(PLAN)
    context = multiprocessing.get_context("fork")
    watcher = context.Process(target=_kill_at_half, args=(server, tmp_path))
    watcher.start()
    assert follow([PLAN], [sys.executable, "-c", TRAIN], interval=0.2) == 7, "the command's own exit code"
    watcher.join()
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: tracking: ")]
    assert warnings and server.address in warnings[0]
    shutil.rmtree("work")
    finish("r1", 20)
    with server:
        assert mirrored(tmp_path)["r0"][3] == losses(FINISHED), "what was mirrored before survives the power cut"
        sync(PLAN)
        found = mirrored(tmp_path)
        assert (found["r1"][0], found["r1"][3]) == ("FINISHED", losses(20))
        assert found.keys() == {"r0", "r1"}
        assert (run_dir("r1") / "record.json").is_file()


def _kill_at_half(server: Server, tree: Path) -> None:
    while not (tree / "half").exists():
        time.sleep(0.05)
    deadline = time.monotonic() + 60
    while "r1" not in mirrored(tree) and time.monotonic() < deadline:
        time.sleep(0.2)
    server.kill()
    (tree / "dead").touch()


def test_what_the_script_needs_is_one_line(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("only root is another user than the database's")
    asked = os.environ | {"MLFLOW_TEAM": str(closed / "team")}
    done = subprocess.run([ROOT / "workflow/mlflow-team"], env=asked, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"mlflow-team: the user postgres cannot enter {closed}")
