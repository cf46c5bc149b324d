"""Protocols on frozen features against others, in one run: neighbours, episodes, a grid of penalties, a probe's time.

    python -m benchmarks.frozen [--images 60000] [--test 10000] [--features 512] [--rounds 3] [--threads 2]

Neighbours are held against scikit-learn's brute force, episodes against a loop that takes them one by one with torch's
own `cdist`, as easyfsl's prototypical networks do with features. The choice of a penalty, for `--fitted` images and on
as many of val, is held against scikit-learn's LogisticRegression, which starts each time from where it stands. Each
pair runs in turns on the same features: ten classes, rectified noise with a common mean. The probe, which is trained
once, has no rival. The table has medians, and what share of the results is the same. Prints Markdown; with one thread,
seconds are processor time.
"""

import argparse
import os
import platform
import statistics
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.meter import timed
from benchmarks.tables import table
from gessl.grid.values import load_protocol
from gessl.protocols._episodes import Episodes
from gessl.protocols._neighbours import nearest
from gessl.protocols.contract import Subject, Target
from gessl.protocols.embed import position_tensor
from gessl.protocols.fewshot__proto_v1 import Prototypes
from gessl.protocols.knn__instdisc_200 import WeightedNeighbours
from gessl.protocols.linear__wmse_v1 import LinearProbe
from gessl.protocols.transfer__kornblith_linear import KornblithLinear
from gessl.rng import generator, numpy_generator

NEIGHBOURS = 5
CLASSES, SHOT, QUERIES, WAY = 10, 5, 15, 5
SIGNAL = 0.3  # of a class's mean, in units of the noise's spread


class Problem(NamedTuple):
    """Features float32 [n, F] with labels [n], of which the last `test` are tested, and episodes of those."""

    features: Tensor
    labels: Tensor
    test: int
    episodes: Episodes


class Row(NamedTuple):
    """Of one protocol: seconds of ours and of the other, the median of their ratios, the share of equal results."""

    protocol: str
    ours: float
    other: str = "–"
    seconds: float | None = None
    ratio: float | None = None
    same: float | None = None


def problem(images: int, test: int, features: int, episodes: int) -> Problem:
    random, numbers = generator(0, "frozen", "features"), numpy_generator(0, "frozen", "episodes")
    labels = torch.randint(CLASSES, (images,), generator=random)
    means = SIGNAL * torch.randn(CLASSES, features, generator=random)
    data = F.relu(means[labels] + torch.randn(images, features, generator=random))
    tested = np.arange(images - test, images)
    pools = [tested[labels[-test:].numpy() == label] for label in range(CLASSES)]
    classes = np.stack([numbers.permutation(CLASSES)[:WAY] for _ in range(episodes)])
    drawn = np.stack([[numbers.choice(pools[c], SHOT + QUERIES, replace=False) for c in row] for row in classes])
    return Problem(data, labels, test, Episodes(classes, drawn[..., :SHOT], drawn[..., SHOT:]))


def plain_loop(features: Tensor, episodes: Episodes) -> Tensor:
    """Accuracy of each episode, taken one by one: means class by class, `torch.cdist` as it comes."""
    supports, queries = (position_tensor(part, features.device) for part in (episodes.support, episodes.query))
    way, shot, per_class = *supports.shape[1:], queries.shape[2]
    known, truth = (torch.arange(way).repeat_interleave(images) for images in (shot, per_class))
    accuracies = []
    for support, query in zip(supports, queries, strict=True):
        examples = features[support.flatten()]
        prototypes = torch.stack([examples[known == place].mean(0) for place in range(way)])
        scores = -torch.cdist(features[query.flatten()], prototypes)
        accuracies.append((scores.argmax(1) == truth).double().mean())
    return torch.stack(accuracies)


def brute_force(bank: Tensor, queries: Tensor) -> Tensor:
    """scikit-learn's neighbours: places [q, k]."""
    search = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(bank.numpy())
    return torch.from_numpy(search.kneighbors(queries.numpy(), return_distance=False))


def weighted_votes(bank: Tensor, labels: Tensor, queries: Tensor, like: WeightedNeighbours) -> Tensor:
    """scikit-learn's classifier with the same weights: class numbers [q]."""
    votes = KNeighborsClassifier(
        like.neighbours, metric="cosine", algorithm="brute", weights=lambda away: np.exp((1 - away) / like.temperature)
    )
    return torch.from_numpy(votes.fit(bank.numpy(), labels.numpy()).predict(queries.numpy()))


def plain_grid(given: Problem, fitted: int, like: KornblithLinear) -> Tensor:
    """Accuracy in percent on the images after the first `fitted` ones, by penalty; last comes the best penalty."""
    features, labels = given.features.double().numpy(), given.labels.numpy()
    model = LogisticRegression(warm_start=True, max_iter=like.iterations, tol=like.tolerance)
    penalties, found = np.geomspace(like.least, like.most, like.penalties), []
    for penalty in penalties:
        with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):
            model.set_params(C=1 / penalty).fit(features[:fitted], labels[:fitted])
        found.append(100 * model.score(features[fitted : 2 * fitted], labels[fitted : 2 * fitted]))
    return torch.tensor([*found, penalties[int(np.argmax(found))]], dtype=torch.float64).round(decimals=9)


def chosen_of_grid(given: Problem, fitted: int, ours: KornblithLinear) -> Tensor:
    """The same by the protocol."""
    train, val, test = torch.arange(3 * fitted).split(fitted)
    target = Target(np.empty(0, np.uint8), given.labels, train, val, test, CLASSES, "")
    choice = ours.choose(Subject(torch.nn.Identity(), given.features), target, 0)
    return torch.tensor([*choice["val"], choice["penalty"]], dtype=torch.float64).round(decimals=9)  # type: ignore[misc]


def in_turns(ours: Callable[[], Tensor], other: Callable[[], Tensor], rounds: int) -> tuple[float, float, float, float]:
    """Median seconds of both, the median of their ratios, and the share of entries of their results that are equal."""
    pairs = []
    for _ in range(rounds):
        (first, found), (second, expected) = timed(ours, "cpu"), timed(other, "cpu")
        pairs.append((first, second))
    same = (found == expected).reshape(len(found), -1).all(1).double().mean()
    times = (statistics.median(column) for column in zip(*pairs, strict=True))
    return *times, statistics.median(first / second for first, second in pairs), float(same)


def measured(given: Problem, rounds: int, fitted: int) -> Iterator[Row]:
    """One row per protocol; `fitted` images are fitted under each penalty."""
    bank, queries = given.features[: -given.test], given.features[-given.test :]
    prototypes, probe = load_protocol("fewshot/proto-v1"), load_protocol("linear/wmse-v1")
    weighted = load_protocol("knn/instdisc-200")
    assert isinstance(prototypes, Prototypes) and isinstance(probe, LinearProbe)
    assert isinstance(weighted, WeightedNeighbours)
    ours, other, ratio, same = in_turns(
        lambda: nearest(bank, queries, NEIGHBOURS).places.sort().values,
        lambda: brute_force(bank, queries).sort().values,
        rounds,
    )
    yield Row(f"{NEIGHBOURS}-nn", ours, f"scikit-learn {sklearn.__version__}, brute force", other, ratio, same)
    known = given.labels[: -given.test]
    ours, other, ratio, same = in_turns(
        lambda: weighted.predict(bank, known, queries, classes=CLASSES),
        lambda: weighted_votes(bank, known, queries, weighted),
        rounds,
    )
    name = f"{weighted.neighbours}-nn, weighted"
    yield Row(name, ours, f"scikit-learn {sklearn.__version__}, cosine, brute force", other, ratio, same)
    ours, other, ratio, same = in_turns(
        lambda: prototypes.accuracies(given.features, given.episodes),
        lambda: plain_loop(given.features, given.episodes),
        rounds,
    )
    name = f"{len(given.episodes.classes)} episodes, {WAY}-way {SHOT}-shot"
    yield Row(name, ours, "plain loop", other, ratio, same)
    grid = load_protocol("transfer/kornblith-linear")
    assert isinstance(grid, KornblithLinear)
    ours, other, ratio, same = in_turns(
        lambda: chosen_of_grid(given, fitted, grid), lambda: plain_grid(given, fitted, grid), rounds
    )
    yield Row(f"{grid.penalties} penalties", ours, f"scikit-learn {sklearn.__version__}", other, ratio, same)
    seconds, _ = timed(lambda: probe.fit(bank, given.labels[: -given.test], CLASSES, 0), "cpu")
    yield Row("linear", seconds)


def markdown(rows: list[Row]) -> str:
    total = Row("all", sum(row.ours for row in rows))
    head = ("protocol", "ours (s)", "against", "its time (s)", "ours / it", "same results")
    forms = ("", ".2f", "", ".2f", ".2f", ".2%")
    return table(
        head,
        (
            ["–" if value is None else format(value, form) for value, form in zip(row, forms, strict=True)]
            for row in (*rows, total)
        ),
    )


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=60_000)
    options.add_argument("--test", type=int, default=10_000, help="how many of the images are tested")
    options.add_argument("--features", type=int, default=512)
    options.add_argument("--episodes", type=int, default=2000)
    options.add_argument("--fitted", type=int, default=5000, help="images that are fitted under each penalty")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    load = os.getloadavg()[0]
    given = problem(chosen.images, chosen.test, chosen.features, chosen.episodes)
    with threadpool_limits(chosen.threads):
        rows = list(measured(given, chosen.rounds, chosen.fitted))
    print(
        f"{platform.machine()}, {chosen.threads} CPU thread(s), load {load:.1f} before, torch {torch.__version__}; "
        f"{chosen.test} tested of {chosen.images} x {chosen.features} features, {chosen.rounds} rounds\n"
    )
    print(markdown(rows))


if __name__ == "__main__":
    main()
