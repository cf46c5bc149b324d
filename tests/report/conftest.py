import os
from pathlib import Path

import pytest
from tree import Tree

from gessl.layout import report_dir
from gessl.report.step import report


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A project with a finished report over the whole made-up tree."""
    root, before = tmp_path_factory.mktemp("project"), Path.cwd()
    os.chdir(root)
    try:
        report(Tree().write())
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def demo(built, monkeypatch):
    """The folder of the report, with its project as working directory."""
    monkeypatch.chdir(built)
    return report_dir("demo")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project as working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_figures(monkeypatch):
    """Reports without figures, which take two thirds of a report's time, for tests of what else is in it."""
    monkeypatch.setattr("gessl.report.step.draw_all", lambda *inputs: [])
