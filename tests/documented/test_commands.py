"""Runs every command of the documentation's `sh` blocks, in order, where `make run` has finished."""

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# CI runs these itself, before and after this file
ELSEWHERE = {"make run", "make test", "make lint types"}


def commands() -> list[str]:
    found = []
    for page in ("README.md", "CONTRIBUTING.md"):
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S):
            lines = (line.split("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines())
            found += [line for line in lines if line and line not in ELSEWHERE]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", commands())
def test_the_command_does_what_it_says(command: str) -> None:
    if command == "make mlflow":  # a server: it must come up, and is then stopped
        with socket.socket() as port:
            assert port.connect_ex(("127.0.0.1", 5000)), "somebody's server is at port 5000: stop it first"
        server = subprocess.Popen(command.split(), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_for("http://127.0.0.1:5000/health")
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # make, the server and its workers, and nobody else's
            server.wait(30)
        return
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout + done.stderr, "a command of the documentation says something"


def wait_for(address: str) -> None:
    import time
    import urllib.error
    import urllib.request

    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
