"""A progress bar with the time left, where tqdm is installed; a bare GPU machine may lack it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(total: int, description: str) -> Iterator[Callable[[], object]]:
    """Gives a function to call once per unit of work done."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda: None
        return
    with tqdm(total=total, desc=description, unit="call") as bar:
        yield bar.update
