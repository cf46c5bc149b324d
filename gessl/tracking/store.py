"""The MLflow store: which one, made whole, written by one process at a time."""

import contextlib
import fcntl
import logging
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gessl.errors import UserError
from gessl.files import atomic_text

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STORE = Path("mlflow")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # a pooled connection would go on writing to a deleted file
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the next look is the retry
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds: a server that many use at once may be slow
}


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or else the embedded store's.

    Raises:
        UserError: it is a SQLite store that is not named by the plain path of a file, or cannot be.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    uri = named or f"sqlite:///{(STORE / 'mlflow.db').absolute()}"
    if uri.lower().startswith("sqlite") and not _is_plain(uri):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {public(uri)}: a SQLite store is named by the path of its file alone, as in"
            " sqlite:///mlflow/mine.db; options, other drivers and stores in memory would put it elsewhere"
            if named
            else f"{STORE.absolute()}: no place for a SQLite store, for its address may hold no '?'; rename the folder,"
            " or name another store in MLFLOW_TRACKING_URI"
        )
    return uri


def _is_plain(uri: str) -> bool:
    """Whether MLflow, SQLAlchemy and SQLite take it for a file of just that name."""
    scheme, _, path = uri.partition(":///")
    return scheme == "sqlite" and bool(path) and "?" not in path and not path.startswith((":", "file:"))


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def public(text: str) -> str:
    """`text` without the user and password of an address in it."""
    return re.sub(r"//[^/@\s]+@", "//", text)


@contextlib.contextmanager
def one_writer(uri: str) -> Iterator[None]:
    """A SQLite store, or a tree of results to another one, is written by one process at a time; the others wait."""
    database = database_of(uri)
    folder, name = (STORE, "server") if database is None else (database.parent, database.name)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tree_id() -> str:
    """Names this tree of results among those that share a store, who may all have grids of the same name.

    Drawn at the first call and kept; call it inside `one_writer`.
    """
    path = STORE / "tree"
    if not path.is_file():
        atomic_text(path, uuid.uuid4().hex + "\n")
    return path.read_text(encoding="utf-8").strip()


def open_store(uri: str) -> "MlflowClient":
    """A client of the store, which is created if need be (ten seconds); call it inside `one_writer`."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # two seconds: only once there is something to do

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    database = database_of(uri)
    if database is not None and not (database.is_file() and database.stat().st_size):
        _create(database)
    return mlflow.tracking.MlflowClient(tracking_uri=uri)


def _create(database: Path) -> None:
    """Make an empty store next to its place, then rename it: MLflow leaves a half-made one unusable."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = database.with_name(f".{database.name}.tmp")  # one writer at a time: this function's caller is it
    _remove(unfinished)  # which a killed process left
    try:
        store: Any = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"sqlite:///{unfinished}", (database.parent / "artifacts").as_uri()
        )
        store.engine.dispose()
        os.replace(unfinished, database)
    except BaseException:
        _remove(unfinished)
        raise


def _remove(unfinished: Path) -> None:
    """Remove a half-made store, its journal, too."""
    for left in unfinished.parent.glob(f"{unfinished.name}*"):
        left.unlink()
