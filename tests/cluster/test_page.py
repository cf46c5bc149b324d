"""The commands of docs/cluster.md, where no SLURM is needed for them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, copy_project


@pytest.mark.slow
def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/cluster.md").read_text(encoding="utf-8"), flags=re.S)
    commands = [line for block in blocks for line in block.splitlines()]
    # the server's is run by make test-team
    here = [command for command in commands if not command.startswith("workflow/mlflow-team")]
    assert len(here) == len(commands) - 1 > 1
    (project / ".venv").mkdir()
    (project / ".venv/bin").symlink_to(Path(sys.executable).parent)
    for command in here:
        done = subprocess.run(command.split(), cwd=project, capture_output=True, encoding="utf-8", env=os.environ)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout
