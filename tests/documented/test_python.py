"""The examples of the page on Python functions, as one program, where `make run` has finished."""

import subprocess
import sys

from tests.conftest import ROOT
from tests.support.pages import blocks


def test_the_examples_are_one_program() -> None:
    program = "\n".join(blocks("docs/python.md", "python"))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stderr
    assert "OuterStep(loss=" in done.stdout
