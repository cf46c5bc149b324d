"""`gessl check --method`: a base method against each clause of its contract."""

from pathlib import Path

import torch

from gessl.grid.values import method_at
from gessl.training.contract import report


def check_method(name: str, values: Path | None) -> int:
    """Print each clause of the contract; 1 if one fails."""
    torch.set_num_threads(1)  # the network is tiny
    failed = 0
    for clause, problem in report(name, method_at(name, values)):
        print(f"✗ {clause}: {problem}" if problem else f"✓ {clause}")
        failed += bool(problem)
    return int(failed > 0)
