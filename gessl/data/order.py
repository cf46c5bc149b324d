"""The order in which runs see the training images: a function of the seed, the epoch and the images' positions."""

import numpy as np
from numpy.typing import NDArray

from gessl.errors import UserError
from gessl.rng import numpy_generator

Positions = NDArray[np.int64]


class Order:
    """Mini-batch tasks, cut out of one permutation of the training images per epoch.

    Every run on a data set with a seed has the same permutations, whatever its batch: comparisons are paired.

    Attributes:
        train: positions of the training images, ascending, `[n]`.
        batches: mini-batches of an epoch; a rest shorter than `batch` is left out.
    """

    def __init__(self, train: Positions, seed: int, batch: int) -> None:
        """As above.

        Raises:
            UserError: the batch is larger than the data set.
        """
        if batch > len(train):
            raise UserError(f"train.batch: {batch} is more than the {len(train)} training images; give fewer")
        self.train, self.batches = train, len(train) // batch
        self._seed, self._batch = seed, batch
        self._epoch, self._permutation = -1, train

    def positions(self, task: int) -> Positions:
        """Positions `[batch]` of mini-batch task `task`, counted from 0 over all epochs.

        The permutation of an epoch is drawn when a task asks for it, and kept until one asks for another: ask in
        ascending order.
        """
        epoch, place = divmod(task, self.batches)
        if epoch != self._epoch:
            self._permutation = numpy_generator(self._seed, "order", epoch).permutation(self.train)
            self._epoch = epoch
        return self._permutation[place * self._batch : (place + 1) * self._batch]
