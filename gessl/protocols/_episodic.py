"""What protocols share that draw few-shot episodes from the test split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from gessl.data.supply import Supply
from gessl.protocols._episodes import Episodes, draw_episodes
from gessl.protocols._items import require
from gessl.protocols.contract import Protocol, Tasks
from gessl.protocols.pools import MOST_DRAWN, Images, Pool, Ways, too_many
from gessl.settings import Misfit, Range


@dataclass(frozen=True)
class Episodic(Protocol):
    """Episodes of every way with every shot.

    Attributes:
        ways: classes per episode.
        shots: support images per class.
        queries: query images per class.
        episodes: episodes per setting.
    """

    ways: tuple[Ways, ...]
    shots: tuple[Images, ...]
    queries: Images
    episodes: Annotated[int, Range(ge=1, le=1_000_000)]

    def contradictions(self) -> Iterator[Misfit]:
        """Nothing to draw, the same twice, or more than memory holds."""
        for name in ("ways", "shots"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                yield Misfit((name,), f"{list(values)}; give different numbers, one at least")
        positions = self.episodes * max((0, *self.ways)) * (max((0, *self.shots)) + self.queries)
        if positions > MOST_DRAWN:
            yield Misfit(("episodes", "ways", "shots", "queries"), too_many(positions))

    def misfits(self, given: Supply) -> Iterator[Misfit]:
        """Too few classes with enough test images, too."""
        yield from super().misfits(given)
        lacking = {
            f"{way}w{shot}s": shot + self.queries
            for way in self.ways
            for shot in self.shots
            if given.classes_with("test", shot + self.queries) < way
        }
        if lacking:
            names, least = ", ".join(lacking), min(lacking.values())
            classes = given.classes_with("test", least)
            text = (
                f"{classes} classes with {least} test images or more, too few for {names}; lower ways, shots or queries"
            )
            yield Misfit(("queries", "shots", "ways"), text)

    def draw(self, pools: Mapping[str, Pool], seed: int) -> Tasks:
        """Episodes of the test split, by setting: `5w1s/classes`, `5w1s/support`, `5w1s/query`."""
        tasks = Tasks({}, {})
        for way in self.ways:
            for shot in self.shots:
                name = f"{way}w{shot}s"
                episodes, facts = draw_episodes(pools["test"], seed, way, shot, self.queries, self.episodes)
                tasks.arrays.update({f"{name}/{part}": array for part, array in vars(episodes).items()})
                tasks.facts[name] = facts
        return tasks

    def require_episodes(self, episodes: Episodes) -> None:
        """Refuse to score nothing.

        Raises:
            UserError: there is no episode, or none has support and queries of two classes.
        """
        count, way, shot = episodes.support.shape
        require(self.id, "episodes", count, 1)
        require(self.id, "classes an episode", way, 2)
        require(self.id, "support and query images of a class", min(shot, episodes.query.shape[2]), 1)
