import pytest

from tests.evaluation.toy import write_data, write_run, write_tasks
from tests.support.scored import encoder, images, suite

__all__ = ["encoder", "images", "suite"]


@pytest.fixture
def project(tmp_path, monkeypatch, images, suite):
    monkeypatch.chdir(tmp_path)
    write_data(images)
    write_tasks(suite)
    write_run()
