"""Python that imports its own library, the installed packages and one folder of code, and nothing else.

No variable of the environment, no working directory, no `.pth` file and no `sitecustomize` adds a place to import from,
and no bytecode is read that others may have written.
"""

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gessl.audit.environments import cache_folder
from gessl.errors import UserError

START = """
import runpy, sys

sys.path += {places}
target = sys.argv.pop(1)
if target.endswith(".py"):
    runpy.run_path(target, run_name="__main__")
else:
    runpy.run_module(target, run_name="__main__", alter_sys=True)
"""


def installed_in(interpreter: str) -> list[str]:
    """The folders of installed packages of an interpreter, in the order in which it looks into them."""
    if interpreter == sys.executable:
        users = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
        return [place for place in (*users, *site.getsitepackages()) if os.path.isdir(place)]
    ask = "import json, os, site; print(json.dumps([*filter(os.path.isdir, site.getsitepackages())]))"
    done = subprocess.run([interpreter, "-I", "-c", ask], capture_output=True, env=clean_environment())
    if done.returncode != 0:
        raise UserError(f"{interpreter}: cannot be started ({done.stderr.decode(errors='replace').strip()[-200:]})")
    return [str(place) for place in json.loads(done.stdout)]


def clean_environment() -> dict[str, str]:
    """That of this process, without what tells Python or git where to look."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_"))}


@contextmanager
def isolated(interpreter: str, code: Path, places: Sequence[str], scratch: Path) -> Iterator[list[str]]:
    """The command that runs a module, or a `.py` file, with its arguments; they come last.

    Args:
        interpreter: to run it.
        code: the folder whose packages can be imported.
        places: of installed packages (`installed_in`).
        scratch: a folder to write to.
    """
    start, bytecode = scratch / "start.py", _own_folder(cache_folder("bytecode")) or scratch / "bytecode"
    start.write_text(START.format(places=[str(code), *places]), encoding="utf-8")
    try:
        yield [interpreter, "-I", "-S", "-X", f"pycache_prefix={bytecode}", str(start)]
    finally:  # that of `code`, which nobody imports from again; that of the installed packages stays
        own = bytecode / code.relative_to(code.anchor)
        shutil.rmtree(own, ignore_errors=True)
        with suppress(OSError):
            own.parent.rmdir()


def _own_folder(folder: Path) -> Path | None:
    """The folder, made if it is not there; None where others could write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
    except OSError:
        return None
    return folder if facts.st_uid == os.geteuid() and not facts.st_mode & 0o022 else None
