"""The project of the fault tests."""

from tests.faults.conftest import finished

__all__ = ["finished"]
