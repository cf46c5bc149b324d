"""Where this package runs, and for whom: the project's own code, for users without a name or a home, in any locale."""

import getpass
import os
from pathlib import Path

from gessl.errors import UserError
from gessl.layout import WORK

PACKAGE = Path(__file__).resolve().parent


def require_own_code(*search: str) -> None:
    """Check that the working directory, if it is a checkout of this package, is the one whose code runs.

    A project that was copied with its environment would else run the original's code, and record that.

    Args:
        search: folders in which programs that are started from here may look for the package, too.

    Raises:
        UserError: it has a package of its own, and another one runs.
    """
    own = Path(PACKAGE.name)
    if not (own / "__init__.py").is_file():
        return
    for package in (PACKAGE, *(Path(folder, PACKAGE.name) for folder in search)):
        if (package / "__init__.py").is_file() and not own.samefile(package):
            raise UserError(
                f"{own.absolute()}: not the code that runs, which is {package}: the environment belongs to another copy"
                " of the project; run `make env` here, and use this copy's .venv"
            )


def for_libraries() -> dict[str, str]:
    """Variables that programs of other people need: text is UTF-8 whatever the locale is, and everybody is somebody.

    Snakemake and DVC fail where a user id has no name and there is no HOME, as in containers and on some clusters.
    """
    found = {"PYTHONUTF8": "1"}
    try:
        getpass.getuser()
    except (KeyError, OSError):
        found["LOGNAME"] = f"uid{os.getuid()}"
    if os.path.expanduser("~") == "~":
        found["HOME"] = str((WORK / "home").absolute())
    return found
