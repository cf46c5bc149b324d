"""Every command of docs/handing-on.md, in order, on a small project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_the_commands_of_the_page_do_what_it_says(project: Path) -> None:
    shutil.copy(ROOT / "Snakefile", project)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/handing-on.md").read_text(encoding="utf-8"), flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 6
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for line in lines:
        command = line.replace(".venv/bin/gessl", f"{sys.executable} -m gessl").replace("crate digits ", "crate grid ")
        done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", env=environment)
        assert done.returncode == 0, line + done.stdout + done.stderr
    assert 'Good "gessl" signature for lead@example.org' in done.stdout
    assert {"key", "signers", "signatures", "digits-crate"} <= {path.name for path in project.iterdir()}
