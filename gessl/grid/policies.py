"""View policies: `config/views/<name>.yaml`, one each."""

import functools
from pathlib import Path

from gessl.data.views.policy import ViewFile, ViewPolicy
from gessl.documents import names_in, read_document
from gessl.errors import UserError
from gessl.grid.reading import Findings, attempt, unknown
from gessl.layout import VIEWS


def policy_names() -> list[str]:
    """Every view policy, sorted. Whether its file is sound is not asked."""
    return names_in(VIEWS)


def view_policy(name: str) -> tuple[ViewPolicy, ...]:
    """How the views of an image are drawn under the policy `name`: one `ViewPolicy` for each, small crops last.

    Raises:
        UserError: no such policy (names the nearest), or a line for each thing that is wrong with its file.
    """
    if name not in policy_names():
        raise UserError(f"{VIEWS}: {unknown('view policy', name, policy_names())}")
    return read_policy(VIEWS / f"{name}.yaml")


def read_policy(path: Path) -> tuple[ViewPolicy, ...]:
    """The policy in a file; errors as those of `view_policy`."""
    return _read(path, path.read_bytes() if path.is_file() else b"")


@functools.lru_cache(maxsize=256)  # a grid asks for each of its runs
def _read(path: Path, content: bytes) -> tuple[ViewPolicy, ...]:
    """The policy in a file with this content."""
    document = read_document(path)
    findings = Findings(document)
    found, faults = attempt(ViewFile, document.tree)
    findings.extend(faults)
    findings.stop()
    policies: tuple[ViewPolicy, ...] = found.policies()
    return policies
