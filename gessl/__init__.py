"""gessl: universality of self-supervised learning (GeSSL, arXiv 2405.01053), from raw data to an audited report.

The functions for your own code (docs/python.md) are imported when they are first used: `import gessl` loads no torch.
Their modules stand here as text, so that no step's fingerprint depends on them; type checkers read `__init__.pyi`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"
__all__ = ["UserError", "evaluate", "features", "inner_rate", "load", "sigma", "step"]  # noqa: F822 (__getattr__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "errors" if name == "UserError" else f"api.{name}"
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `gessl.sigma` the function: importing `gessl/sigma.py` would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
