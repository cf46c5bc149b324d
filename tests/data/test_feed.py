"""Mini-batches read ahead: in order, never too many, whatever goes wrong in the thread, and how long one waits."""

import functools
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from gessl.cluster.device import StepTime, moment
from gessl.data.feed import Feed
from gessl.data.views import Loaded, ViewPolicy, make_views
from gessl.errors import UserError
from gessl.rng import generator

CPU = torch.device("cpu")
COUNT, BATCH = 9, 4
POLICIES = (ViewPolicy(crop_scale=(0.2, 1.0), flip=0.5), ViewPolicy(gray_prob=0.5), ViewPolicy(size=5))
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
Load = Callable[[], Loaded]


def begin(number: int) -> Load:
    """Mini-batch `number`, of two sets of views."""
    positions = (np.arange(BATCH) + BATCH * number) % len(IMAGES)
    generators = [generator(0, "views", number, s) for s in range(2)]
    return lambda: Loaded(
        positions,
        [torch.from_numpy(IMAGES[positions])],
        lambda pictures: [make_views(pictures[0], POLICIES, one) for one in generators],
    )


@pytest.fixture
def feed() -> Iterator[Callable[..., Feed]]:
    """`feed(begin, ahead, …)`: a feed that is closed at the end."""
    made: list[Feed] = []

    def make(
        begin: Callable[[int], Load],
        ahead: int,
        *,
        first: int = 0,
        device: torch.device = CPU,
        now: Callable[[], float] | None = None,
    ) -> Feed:
        now = now or functools.partial(moment, device)
        made.append(Feed(begin, first, COUNT, ahead=ahead, device=device, now=now))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert not feed_threads(), "threads end with their feed"


def feed_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("feed")]


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
def test_reading_ahead_changes_no_bit(feed: Callable[..., Feed], ahead: int, first: int) -> None:
    ours = feed(begin, ahead, first=first)
    for number in range(first, COUNT):
        for one, other in zip(ours.take().views(), begin(number)().views(), strict=True):
            assert all(map(torch.equal, one, other))


def test_without_reading_ahead_there_is_no_thread(feed: Callable[..., Feed]) -> None:
    ours, readers = feed(lambda number: lambda: readers.append(threading.current_thread()) or begin(number)(), 0), []
    for _ in range(COUNT):
        ours.take()
    assert set(readers) == {threading.main_thread()} and not feed_threads()


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_no_more_are_begun_than_was_agreed(feed: Callable[..., Feed], ahead: int) -> None:
    """While the one that was taken is computed with, all that may be begun is read, and nothing more."""
    begun, read, more = [], [], threading.Semaphore(0)

    def counted(number: int) -> Load:
        begun.append((number, threading.current_thread()))

        def load() -> Loaded:
            read.append(number)
            more.release()
            return begin(number)()

        return load

    ours = feed(counted, ahead)
    for number in range(COUNT):
        ours.take()
        upto = min(number + ahead + 1, COUNT)
        assert [one for one, _ in begun] == list(range(upto))
        while len(read) < upto:
            assert more.acquire(timeout=30)
        assert read == list(range(upto))
    assert {thread for _, thread in begun} == {threading.main_thread()}, "the order of images is drawn in order"


@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize("error", [UserError("images.bin: picture 3: is cut short"), MemoryError("none left")])
def test_an_error_is_raised_where_its_images_are_used(feed: Callable[..., Feed], ahead: int, error: Exception) -> None:
    def broken(number: int) -> Load:
        def load() -> Loaded:
            if number >= 3:
                raise error
            return begin(number)()

        return load

    ours = feed(broken, ahead)
    for _ in range(3):
        ours.take()
    with pytest.raises(type(error)) as raised:
        ours.take()
    assert raised.value is error


def test_closed_it_reads_nothing_more(feed: Callable[..., Feed]) -> None:
    started, go, read = threading.Event(), threading.Event(), []

    def slow(number: int) -> Load:
        def load() -> Loaded:
            read.append(number)
            if number:
                started.set()
                assert go.wait(30)
            return begin(number)()

        return load

    ours = feed(slow, 5)
    ours.take()
    assert started.wait(30)
    threading.Timer(0.05, go.set).start()
    ours.close()
    assert read == [0, 1] and not feed_threads()


class Hand:
    """A clock that is moved by hand; it says when it was read to begin a wait."""

    def __init__(self) -> None:
        self.time, self.reads, self.waiting = 0.0, 0, threading.Event()

    def __call__(self) -> float:
        self.reads += 1
        if self.reads % 2:
            self.waiting.set()
        return self.time


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize(("reading", "share"), [(0.0, 0.0), (99.0, 0.99), (1.0, 0.5)])
def test_the_wait_is_what_passes_before_the_images_are_there(
    feed: Callable[..., Feed], ahead: int, reading: float, share: float
) -> None:
    """Each read takes so long after the step has begun to wait for it; then the step computes for a second."""
    clock = Hand()

    def slow(number: int) -> Load:
        def load() -> Loaded:
            assert clock.waiting.wait(30)
            clock.waiting.clear()
            clock.time += reading
            return begin(number)()

        return load

    ours = feed(slow, ahead, now=clock)
    for _ in range(COUNT):
        began = clock.time
        ours.take()
        clock.time += 1
        timed = StepTime(began, ours.waits(), clock.time)
        assert timed.data_wait() == pytest.approx(share)
        assert not ours.waits()


def test_a_step_of_no_time_waits_for_nothing() -> None:
    assert StepTime(2.0, [(2.0, 2.0)], 2.0).data_wait() == 0
    assert StepTime(0.0, [(0.0, 1.0), (1.5, 2.5)], 4.0).data_wait() == 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("ahead", [0, 2])
def test_on_a_gpu_the_views_are_there_without_a_wait(feed: Callable[..., Feed], ahead: int) -> None:
    """Two rounds of use in between, so that the memory of what was taken is used again too early if it can be."""
    cuda = torch.device("cuda")
    plain = [[views.views.cpu() for views in begin(number)().moved(cuda).views()] for number in range(COUNT)]
    ours, found, busy = feed(begin, ahead, device=cuda), [], torch.rand(2048, 2048, device=cuda)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(COUNT):
            loaded = ours.take()
            for _ in range(20):
                busy = busy @ busy / 2048
            found.append([views.views for views in loaded.views()])
            del loaded
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, plain, strict=True):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(one, other, strict=True))
    waits = ours.waits()
    assert len(waits) == COUNT and 0 <= StepTime(waits[0][0], waits, waits[-1][1]).data_wait() <= 1
