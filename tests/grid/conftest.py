"""A project of its own for tests that write where `unprepared` has links to the checkout."""

from pathlib import Path

import pytest

from tests.conftest import copy_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's files that a workflow needs, copied; it is the working directory."""
    project = copy_project(tmp_path / "project")
    monkeypatch.chdir(project)
    return project
