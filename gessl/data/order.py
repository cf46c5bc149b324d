"""The order in which runs see the training images: a function of the seed, the epoch and the images' positions.

Where a sampler draws each task from one domain, it is one of the images' domains, too.
"""

import numpy as np
from numpy.typing import NDArray

from gessl.errors import UserError
from gessl.rng import numpy_generator

Positions = NDArray[np.int64]


class Order:
    """Tasks, cut out of one permutation of the training images per epoch.

    Every run on a data set with a seed has the same permutations, whatever its batch: comparisons are paired.

    Args:
        train: positions of the training images, ascending, `[n]`.
        seed: of every draw.
        batch: images of a mini-batch.
        parts: mini-batches of a task; no image is in two of them.

    Attributes:
        train: as given.
        batches: tasks of an epoch; a rest that is too short for one is left out.

    Raises:
        UserError: a task has more images than the data set.
    """

    def __init__(self, train: Positions, seed: int, batch: int, parts: int = 1) -> None:
        self._seed, self._images = seed, batch * parts
        if self._images > len(train):
            twice = f"{parts} mini-batches of {batch} are" if parts > 1 else f"{batch} is"
            raise UserError(f"train.batch: {twice} more than the {len(train)} training images; give fewer")
        self.train, self.batches = train, len(train) // self._images
        self._epoch, self._permutation = -1, train

    def positions(self, task: int) -> Positions:
        """Positions `[parts * batch]` of task `task`, counted from 0 over all epochs, one mini-batch after the other.

        The permutation of an epoch is drawn when a task asks for it, and kept until one asks for another: ask in
        ascending order.
        """
        epoch, place = divmod(task, self.batches)
        if epoch != self._epoch:
            self._permutation = numpy_generator(self._seed, "order", epoch).permutation(self.train)
            self._epoch = epoch
        return self._permutation[place * self._images : (place + 1) * self._images]


class OrderByDomain(Order):
    """Tasks whose images are of one domain each, with all images seen about equally often.

    A domain of g images gives a task of I images floor(e · g/I) times in the first e epochs, so each epoch has about
    g/I of its tasks, in an order with those of other domains that is drawn anew each time. It is walked in passes of
    floor(g/I) tasks. Each pass is a new permutation of the domain without the rest of g / I, which it leaves out: the
    next images of a circle that is drawn once, so that all have been left out equally often, or once more.

    After e whole epochs every image has therefore been seen e - 2 to e + 1 times: the tasks' number takes up to one
    off, and within a domain two images differ by one at the end of a pass and by two within one.

    Args:
        train, seed, batch, parts: as of `Order`.
        domains: number of each training image's domain, from 0 on without gaps, `[n]`; each has I images or more.

    Attributes:
        batches: tasks of an epoch, on average, rounded down.
    """

    def __init__(self, train: Positions, seed: int, batch: int, parts: int, domains: NDArray[np.int64]) -> None:
        super().__init__(train, seed, batch, parts)
        members = train[np.argsort(domains, kind="stable")]
        self._sizes = np.bincount(domains)
        self._circles = [
            numpy_generator(seed, "domain", number).permutation(images)
            for number, images in enumerate(np.split(members, np.cumsum(self._sizes)[:-1]))
        ]
        self._sequence = np.empty((0, 2), np.int64)
        self._first = 0
        self._passes: dict[int, tuple[int, Positions]] = {}

    def positions(self, task: int) -> Positions:
        """As of `Order`; an epoch's sequence of domains, and the pass of each, are kept until another is asked for."""
        if self._epoch < 0 or not 0 <= task - self._first < len(self._sequence):
            self._begin(task)
        domain, number = self._sequence[task - self._first].tolist()
        index, place = divmod(number, int(self._sizes[domain]) // self._images)
        walked, images = self._passes.get(domain, (-1, self.train))
        if walked != index:
            images = self._pass(domain, index)
            self._passes[domain] = index, images
        return images[place * self._images : (place + 1) * self._images]

    def _begin(self, task: int) -> None:
        """The epoch of a task: for each of its tasks the domain, and which of that domain's tasks it is."""
        epoch = task * self._images // len(self.train)  # none that is earlier: there are this many at most
        while self._before(epoch + 1).sum() <= task:
            epoch += 1
        before, after = self._before(epoch), self._before(epoch + 1)
        drawn = np.repeat(np.arange(len(self._sizes)), after - before)
        domains = numpy_generator(self._seed, "order of domains", epoch).permutation(drawn)
        numbers = np.empty_like(domains)
        for domain in range(len(self._sizes)):
            numbers[domains == domain] = np.arange(before[domain], after[domain])
        self._epoch, self._first = epoch, int(before.sum())
        self._sequence = np.stack([domains, numbers], axis=1)

    def _before(self, epoch: int) -> NDArray[np.int64]:
        """By domain, its tasks before an epoch."""
        return epoch * self._sizes // self._images

    def _pass(self, domain: int, index: int) -> Positions:
        """A pass through a domain: all of its images but those that it leaves out, in a new order."""
        circle, size = self._circles[domain], int(self._sizes[domain])
        left_out = size % self._images
        kept = np.roll(circle, -index * left_out % size)[left_out:]
        return numpy_generator(self._seed, "order within domain", domain, index).permutation(kept)
