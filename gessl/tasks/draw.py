"""Draw the tasks of a data set once per seed, so that every method is scored on the same ones.

Every row (episode, subset draw, σ task) has a generator of its own: a longer file extends a shorter one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from gessl.data.arrays import read_index
from gessl.errors import UserError, memory_for
from gessl.files import atomic_json
from gessl.layout import data_dir, tasks_dir
from gessl.records.step import Step
from gessl.rng import numpy_generator
from gessl.settings import Misfit, Range, Settings

Positions = NDArray[np.int64]
SUBSETS = {"1-per-class": 0.0, "1pct": 0.01, "10pct": 0.1}
"""Label subsets by name: the share of the labelled training images, but at least one per class."""


MOST_DRAWN = 100_000_000  # positions in one file: 800 MB
Images = Annotated[int, Range(ge=1, le=100_000)]
"""Of a class."""
Ways = Annotated[int, Range(ge=2, le=10_000)]


@dataclass(frozen=True)
class SuiteSettings(Settings):
    """The σ suite: small supervised tasks on which an encoder is compared with each task's optimal model.

    Attributes:
        tasks: how many.
        way: classes per task.
        train, val, test: images per class, from the split of the same name (all from test where the data set's splits
            share no class).
    """

    tasks: Annotated[int, Range(ge=1, le=100_000)] = 20
    way: Ways = 5
    train: Images = 10
    val: Images = 5
    test: Images = 10

    def contradictions(self) -> Iterator[Misfit]:
        """What would take more memory than anybody means."""
        positions = self.tasks * self.way * (self.train + self.val + self.test)
        if positions > MOST_DRAWN:
            yield Misfit(("tasks", "way", "train", "val", "test"), _too_many(positions))


@dataclass(frozen=True)
class TaskSettings(Settings):
    """How many tasks of each kind are drawn.

    Attributes:
        ways: classes per few-shot episode.
        shots: support images per class; every way is combined with every shot.
        queries: query images per class.
        episodes: episodes per setting.
        label_draws: independent draws of each label subset.
        sigma: the σ suite.
    """

    ways: tuple[Ways, ...] = (5, 10)
    shots: tuple[Images, ...] = (1, 5)
    queries: Images = 15
    episodes: Annotated[int, Range(ge=1, le=1_000_000)] = 200
    label_draws: Annotated[int, Range(ge=1, le=1000)] = 5
    sigma: SuiteSettings = SuiteSettings()

    def contradictions(self) -> Iterator[Misfit]:
        """Nothing to draw, the same twice, or more than memory holds."""
        for name in ("ways", "shots"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                yield Misfit((name,), f"{list(values)}; give different numbers, one at least")
        positions = self.episodes * max((0, *self.ways)) * (max((0, *self.shots)) + self.queries)
        if positions > MOST_DRAWN:
            yield Misfit(("episodes", "ways", "shots", "queries"), _too_many(positions))


def _too_many(positions: int) -> str:
    return f"these settings draw {positions} images in one file, above {MOST_DRAWN}; lower some of them"


@dataclass(frozen=True)
class Pool:
    """The labelled images of one split.

    Attributes:
        dataset, split: for messages.
        classes: positions by class number; classes without images are absent.
        group: group number of every position of the data set; an image without a group is a group of its own.
    """

    dataset: str
    split: str
    classes: dict[int, Positions]
    group: Positions

    def with_at_least(self, images: int) -> list[int]:
        """Classes from which `sample` can take `images`."""
        return [label for label, rows in self.classes.items() if len(np.unique(self.group[rows])) >= images]

    def sample(self, label: int, images: int, rng: np.random.Generator) -> Positions:
        """Different images of a class, never two of one group, which could put the answer to a query in the support."""
        mixed = rng.permutation(self.classes[label])
        _, first = np.unique(self.group[mixed], return_index=True)
        return mixed[np.sort(first)[:images]]


def draw(dataset: str, seed: int, settings: TaskSettings) -> None:
    """Write `results/tasks/<dataset>-s<seed>/` (docs/formats.md).

    Raises:
        UserError: the data set is not prepared, or has too few images or classes for the settings; a seed below 0.
    """
    if seed < 0:
        raise UserError(f"{dataset}: seed {seed}; give 0 or more")
    inputs = [data_dir(dataset) / name for name in ("index.csv", "card.json")]
    out = tasks_dir(dataset, seed)
    less = "lower tasks.episodes or tasks.label_draws, or free memory"
    with (
        memory_for(f"{out.name}: drawing tasks", less),
        Step("tasks", out.name, out, inputs=inputs, config={"tasks": asdict(settings)}, seed=seed) as step,
    ):
        index = read_index(dataset)
        group, labels = _group_numbers(index["group"]), index["label"]
        pools = {
            split: Pool(dataset, split, _by_class(labels, np.flatnonzero(index["split"] == split)), group)
            for split in ("train", "val", "test")
        }
        card: dict[str, Any] = {"dataset": dataset, "seed": seed, "settings": asdict(settings)}
        card["episodes"] = _write_episodes(step.path("episodes.npz"), seed, pools["test"], settings)
        card["labels"] = _write_labels(step.path("labels.npz"), seed, pools["train"], settings.label_draws)
        card["sigma"] = _write_suite(step.path("sigma.npz"), seed, pools, settings.sigma)
        atomic_json(step.path("card.json"), card)


def _group_numbers(names: NDArray[np.str_]) -> Positions:
    """Equal names get equal numbers; each empty name gets its own."""
    _, numbers = np.unique(names, return_inverse=True)
    alone = names == ""
    numbers[alone] = len(names) + np.arange(alone.sum())
    return numbers.astype(np.int64)


def _by_class(labels: Positions, rows: Positions) -> dict[int, Positions]:
    return {int(label): rows[labels[rows] == label] for label in np.unique(labels[rows]) if label >= 0}


def _write_episodes(path: Path, seed: int, pool: Pool, settings: TaskSettings) -> dict[str, Any]:
    """Few-shot episodes; a class with too few images for shot + queries is left out, never drawn with replacement."""
    arrays: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for way in settings.ways:
        for shot in settings.shots:
            name, images = f"{way}w{shot}s", shot + settings.queries
            eligible = pool.with_at_least(images)
            _require_way(pool, way, len(eligible), images, "tasks.ways, tasks.shots or tasks.queries")
            classes = np.empty((settings.episodes, way), np.int64)
            drawn = np.empty((settings.episodes, way, images), np.int64)
            for episode in range(settings.episodes):
                rng = numpy_generator(seed, "episodes", name, episode)
                classes[episode] = rng.permutation(eligible)[:way]
                drawn[episode] = [pool.sample(label, images, rng) for label in classes[episode]]
            assert all(len(np.unique(rows)) == rows.size for rows in drawn), "support and query overlap"
            arrays[f"{name}/classes"] = classes
            arrays[f"{name}/support"], arrays[f"{name}/query"] = drawn[..., :shot], drawn[..., shot:]
            left_out = sorted(set(pool.classes) - set(eligible))
            counts[name] = {"episodes": settings.episodes, "classes": len(eligible), "classes_left_out": left_out}
    np.savez(path, **arrays)
    return counts


def _require_way(pool: Pool, way: int, eligible: int, images: int, keys: str) -> None:
    if eligible < way:
        raise UserError(
            f"{pool.dataset}, split {pool.split!r}: {eligible} classes have {images} images or more, but a task takes "
            f"{way}; lower {keys}"
        )


def _write_labels(path: Path, seed: int, pool: Pool, draws: int) -> dict[str, Any]:
    """Label subsets: the heads of one ranking per draw, so that smaller subsets lie within larger ones."""
    if not pool.classes:
        raise UserError(f"{pool.dataset}, split 'train': no image has a label; label subsets need some")
    labelled = sum(len(rows) for rows in pool.classes.values())
    rankings = [_ranking(pool, numpy_generator(seed, "labels", draw)) for draw in range(draws)]
    arrays: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for name, share in SUBSETS.items():
        images = max(len(pool.classes), round(share * labelled))
        arrays[name] = np.sort([ranking[:images] for ranking in rankings], axis=1)
        counts[name] = {"draws": draws, "images": images, "classes": len(pool.classes)}
    np.savez(path, **arrays)
    return counts


def _ranking(pool: Pool, rng: np.random.Generator) -> Positions:
    """All labelled positions in rounds: round r holds the r-th image of every class that has one, in random order."""
    mixed = [rng.permutation(rows) for rows in pool.classes.values()]
    rounds = np.concatenate([np.arange(len(rows)) for rows in mixed])
    positions = np.concatenate(mixed)
    ranking: Positions = positions[np.lexsort((rng.random(len(positions)), rounds))]
    return ranking


def _write_suite(path: Path, seed: int, pools: dict[str, Pool], settings: SuiteSettings) -> dict[str, Any]:
    """σ tasks: classes that have enough images in all three splits.

    Where train and test share no class, a task of test classes is one of new classes, whose train and val images can
    only be other images of the test split.
    """
    shared = pools["train"].classes.keys() & pools["test"].classes.keys()
    sources = {split: (split,) for split in pools} if shared else {"test": tuple(pools)}
    sizes = {split: getattr(settings, split) for split in pools}
    eligible = set().union(*(pool.classes for pool in pools.values()))
    for source, splits in sources.items():
        images, keys = sum(sizes[split] for split in splits), [f"tasks.sigma.{key}" for key in ("way", *splits)]
        eligible &= set(pools[source].with_at_least(images))
        _require_way(pools[source], settings.way, len(eligible), images, " or ".join(keys))
    classes = np.empty((settings.tasks, settings.way), np.int64)
    arrays: dict[str, Any] = {
        split: np.empty((settings.tasks, settings.way, size), np.int64) for split, size in sizes.items()
    }
    for task in range(settings.tasks):
        rng = numpy_generator(seed, "sigma", task)
        classes[task] = rng.permutation(sorted(eligible))[: settings.way]
        for source, splits in sources.items():
            ends = np.cumsum([sizes[split] for split in splits])
            drawn = np.stack([pools[source].sample(label, ends[-1], rng) for label in classes[task]])
            for split, part in zip(splits, np.split(drawn, ends[:-1], axis=1), strict=True):
                arrays[split][task] = part
    np.savez(path, classes=classes, **arrays)
    return {"tasks": settings.tasks, "classes": len(eligible), "sources": sources}
