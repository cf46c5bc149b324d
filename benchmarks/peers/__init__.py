"""Other ways to the same hyper-gradient, each written as its users would write it.

A peer is a module with `prepare(problem)`, which does whatever is done once per training run and returns the function
that computes one outer step's hyper-gradient by parameter name.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import version

from benchmarks.problem import Problem
from gessl.methods.base import Tensors

Run = Callable[[], Tensors]
Prepare = Callable[[Problem], Run]

# label: module here, and distribution if it needs one
PEERS = {
    "plain loop": ("plain_loop", None),
    "Betty": ("betty_peer", "betty-ml"),
    "TorchOpt": ("torchopt_peer", "torchopt"),
}


def load() -> tuple[dict[str, Prepare], dict[str, str], dict[str, str]]:
    """The peers that can be imported, their packages' versions, and why the others are left out, all by label."""
    found, versions, skipped = {}, {}, {}
    for label, (module, distribution) in PEERS.items():
        try:
            found[label] = importlib.import_module(f"benchmarks.peers.{module}").prepare
            if distribution:
                versions[label] = version(distribution)
        except ImportError as error:
            skipped[label] = f"cannot be imported ({error})"
    return found, versions, skipped
