import os
import shutil
from pathlib import Path

import pytest

from tests.support.toy_project import RUN, make_data, make_raw, make_report, make_run


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, made once."""
    root, before = tmp_path_factory.mktemp("project"), Path.cwd()
    os.chdir(root)
    try:
        make_data("toy", make_raw("toy"))
        make_run(RUN)
        make_report("grid", RUN)
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, as the working directory."""
    root = tmp_path / "copy"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    return root
