"""The view policies that ship, for tests that go through all of them."""

from importlib.util import find_spec
from pathlib import Path

from gessl.data.views import ViewPolicy
from tests.conftest import ROOT

CAN_BE_READ = all(find_spec(name) for name in ("yaml", "pydantic"))  # not so on a bare GPU machine


def shipped() -> dict[str, tuple[ViewPolicy, ...]]:
    """Every policy by name, whatever the working directory; none where they cannot be read."""
    if not CAN_BE_READ:
        return {}
    from gessl.grid.policies import read_policy

    return {path.stem: read_policy(path) for path in sorted(Path(ROOT / "config/views").glob("*.yaml"))}
