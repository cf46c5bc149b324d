"""Mini-batches one after the other: while one is computed with, the next ones are read and moved to the device.

Reading ahead changes no bit. Each mini-batch is a function of its number, whoever reads it and when.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from gessl.cluster.device import Moment
from gessl.data.views import Loaded


class Feed:
    """Loads mini-batches in ascending order.

    One thread begins them in turn, so that the store's threads have one mini-batch at a time. On CUDA the same thread
    copies the pictures from pinned memory, on a stream of its own, next to what is computed. While a step computes,
    the pictures of up to `ahead` mini-batches are held, and of the one that is being read.

    Args:
        begin: given the number of a mini-batch, called in order and by no thread; what it returns loads that one, and
            is called by the thread if any are read ahead.
        first, count: the number of the first mini-batch, and how many there are from 0 on.
        ahead: how many mini-batches after the one that was taken last may be begun; at 0 there are no threads.
        device: where the pictures are to be.
        now: a moment of that device.
    """

    def __init__(
        self,
        begin: Callable[[int], Callable[[], Loaded]],
        first: int,
        count: int,
        *,
        ahead: int,
        device: torch.device,
        now: Callable[[], Moment],
    ) -> None:
        self._begin, self._next, self._count, self._ahead, self._device = begin, first, count, ahead, device
        self._now = now
        self._begun: deque[Future[tuple[Loaded, torch.cuda.Event | None]]] = deque()
        self._thread = ThreadPoolExecutor(1, "feed")  # starts once it is given something
        self._stream = torch.cuda.Stream() if ahead and device.type == "cuda" else None
        self._waits: list[tuple[Moment, Moment]] = []

    def take(self) -> Loaded:
        """The next mini-batch, on the device.

        Raises:
            UserError: a picture is damaged; whatever else goes wrong in a thread is raised here, too.
        """
        began = self._now()
        loaded = self._read_ahead() if self._ahead else self._begin_next()().moved(self._device)
        self._waits.append((began, self._now()))
        return loaded

    def waits(self) -> list[tuple[Moment, Moment]]:
        """From when to when the device waited for data, since this was asked last."""
        waits, self._waits = self._waits, []
        return waits

    def close(self) -> None:
        """End the thread; what it is reading is waited for, so close the store first."""
        self._thread.shutdown(cancel_futures=True)
        self._begun.clear()

    def _begin_next(self) -> Callable[[], Loaded]:
        self._next += 1
        return self._begin(self._next - 1)

    def _read_ahead(self) -> Loaded:
        while len(self._begun) <= self._ahead and self._next < self._count:
            self._begun.append(self._thread.submit(self._load, self._begin_next()))
        loaded, copied = self._begun.popleft().result()
        if copied is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(copied)  # the device does, nobody here
            for pictures in loaded.pictures:
                pictures.record_stream(stream)  # their memory goes back to the other one only after this one's use
        return loaded

    def _load(self, load: Callable[[], Loaded]) -> tuple[Loaded, torch.cuda.Event | None]:
        if self._stream is None:
            return load(), None
        with torch.cuda.stream(self._stream):  # also says which device, which a new thread does not know
            return load().moved(self._device), self._stream.record_event()
