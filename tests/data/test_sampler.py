"""Tasks from one domain each: which domains there are, how often each image is seen, and what is refused."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gessl.data.domains import domains_of, order_of, pooled
from gessl.data.order import Order, OrderByDomain
from gessl.data.sampler import ByClass, ByGroup, Shuffled
from gessl.errors import UserError
from gessl.layout import data_dir


def order(sizes: Sequence[int], batch: int, parts: int = 1, seed: int = 0) -> tuple[OrderByDomain, dict[int, int]]:
    """The order over domains of these sizes, their images dealt out in turns, and the domain of each position."""
    dealt = [domain for domain, size in enumerate(sizes) for _ in range(size)]
    domains = np.random.default_rng(5).permutation(dealt)
    train = 7 + 3 * np.arange(len(dealt))
    return OrderByDomain(train, seed, batch, parts, domains), dict(zip(train.tolist(), domains.tolist(), strict=True))


SIZES = [(8, 8), (8, 9), (15, 8, 31), (16, 17, 23, 9), (100, 8, 41), (12, 12, 12)]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_image_is_seen_as_often_as_promised(sizes: tuple[int, ...], parts: int) -> None:
    """By enumeration: e - 2 to e + 1 times after e epochs, tasks of one domain each, no image twice in one."""
    batch = 8 // parts
    drawn, domain_of = order(sizes, batch, parts)
    counts: Counter[int] = Counter()
    tasks: Counter[int] = Counter()
    number = 0
    for epoch in range(1, 60):
        while sum(tasks.values()) < sum(epoch * size // 8 for size in sizes):
            task = drawn.positions(number).tolist()
            (domain,) = {domain_of[position] for position in task}
            assert len(set(task)) == 8 == len(task)
            counts.update(task)
            tasks[domain] += 1
            number += 1
        assert [tasks[domain] for domain in range(len(sizes))] == [epoch * size // 8 for size in sizes]
        seen = [counts[position] for position in domain_of]
        assert epoch - 2 <= min(seen) and max(seen) <= epoch + 1
        for domain, size in enumerate(sizes):
            own = [counts[position] for position, mine in domain_of.items() if mine == domain]
            at_the_end_of_a_pass = tasks[domain] % (size // 8) == 0
            assert max(own) - min(own) <= (1 if at_the_end_of_a_pass else 2)


def test_in_whole_passes_nothing_is_left_out() -> None:
    """Sizes that a task divides: every epoch has each image once, as an order without domains has it."""
    drawn, domain_of = order((16, 8, 24), 8)
    for epoch in range(5):
        seen = [position for task in range(6) for position in drawn.positions(6 * epoch + task).tolist()]
        assert sorted(seen) == sorted(domain_of)


def test_a_task_is_made_from_its_number_alone() -> None:
    tasks = range(40)
    whole = [order((15, 8, 31), 8)[0].positions(task).tolist() for task in tasks]
    drawn, _ = order((15, 8, 31), 8)
    for task in (*reversed(tasks), 39, 0, 17):
        assert drawn.positions(task).tolist() == whole[task]
    other, _ = order((15, 8, 31), 8, seed=1)
    assert [other.positions(task).tolist() for task in tasks] != whole
    assert len({tuple(task) for task in whole}) == len(tasks)


def test_far_into_a_run_a_task_is_found_at_once() -> None:
    drawn, domain_of = order((15, 8, 31), 8)
    task = drawn.positions(10**9)
    assert len({domain_of[position] for position in task.tolist()}) == 1


def test_domains_come_in_an_order_that_is_drawn_anew() -> None:
    drawn, domain_of = order((24, 24, 24), 8)
    sequences = {
        tuple(domain_of[int(drawn.positions(9 * epoch + task)[0])] for task in range(9)) for epoch in range(20)
    }
    assert len(sequences) > 15
    assert all(Counter(sequence) == Counter({0: 3, 1: 3, 2: 3}) for sequence in sequences)


def naively_pooled(domains: list[int], task: int) -> set[frozenset[int]]:
    """Which images are together, written a second time."""
    together = {domain: {i for i, mine in enumerate(domains) if mine == domain} for domain in set(domains) - {-1}}
    kept = {domain: images for domain, images in together.items() if len(images) >= task}
    rest = set(range(len(domains))) - set().union(*kept.values())
    if rest and len(rest) < task:
        rest |= kept.pop(min(kept, key=lambda domain: (len(kept[domain]), domain)))
    return {frozenset(images) for images in (*kept.values(), rest) if images}


def test_what_is_too_small_for_a_task_is_together() -> None:
    for sizes in itertools.product((0, 1, 3, 4, 5), repeat=4):  # of the first, images without a domain
        domains = [domain - 1 for domain, size in enumerate(sizes) for _ in range(size)]
        if sum(size >= 4 for size in sizes[1:]) < 2:
            continue
        found = pooled(np.array(domains), 4)
        numbers = sorted(set(found.tolist()))
        assert numbers == list(range(len(numbers)))
        assert {frozenset(np.flatnonzero(found == n).tolist()) for n in numbers} == naively_pooled(domains, 4)
        assert np.bincount(found).min() >= 4


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index of 60 images, of which every third is not in train: six classes, three groups, some without either."""
    monkeypatch.chdir(tmp_path)
    data_dir("toy").mkdir(parents=True)
    (data_dir("toy") / "record.json").write_text("{}", encoding="utf-8")
    index = data_dir("toy") / "index.csv"
    rows = []
    for place in range(60):
        split = ("train", "train", "val", "train", "train", "test")[place % 6]
        label = -1 if place in (0, 1) else place // 6 % 6
        group = "" if place < 4 else ("clinic a", "clinic b", "b3")[place // 20]
        rows.append(f"i{place},{label},c{label},{split},{group},00")
    index.write_text("\n".join(["id,label,class,split,group,sha256", *rows]) + "\n", encoding="utf-8")
    return index


def test_the_domains_are_groups_or_classes_of_the_training_images(toy: Path) -> None:
    train = [place for place in range(60) if place % 3 != 2]
    groups = domains_of("toy", ByGroup(), 0)
    assert groups.tolist() == [-1 if place < 4 else (1, 2, 0)[place // 20] for place in train]
    classes = domains_of("toy", ByClass(), 0)
    by_label = dict(zip([place // 6 % 6 for place in train][2:], classes.tolist()[2:], strict=True))
    assert sorted(by_label.values()) == list(range(6))
    assert classes.tolist() == [-1 if place < 2 else by_label[place // 6 % 6] for place in train]


@pytest.mark.parametrize(("classes", "domains"), [(1, [1] * 6), (2, [2] * 3), (4, [3, 3]), (5, [3, 3]), (9, [6])])
def test_classes_are_dealt_out_evenly_once_a_seed(toy: Path, classes: int, domains: list[int]) -> None:
    labels = np.array([place // 6 % 6 for place in range(60) if place % 3 != 2])[2:]
    partitions = set()
    for seed in range(12):
        found = domains_of("toy", ByClass(classes=classes), seed)[2:]
        pairs = set(zip(labels.tolist(), found.tolist(), strict=True))
        assert len(pairs) == 6, "no class is torn apart"
        assert sorted(Counter(domain for _, domain in pairs).values(), reverse=True) == domains
        partitions.add(frozenset(frozenset(c for c, mine in pairs if mine == d) for d in set(found.tolist())))
    assert (len(partitions) > 1) is (classes in (2, 4, 5))


def test_labels_and_groups_of_other_splits_decide_nothing(toy: Path) -> None:
    before = [domains_of("toy", sampler, 0).tolist() for sampler in (ByClass(), ByClass(classes=4), ByGroup())]
    rows = [line.split(",") for line in toy.read_text(encoding="utf-8").splitlines()]
    for row in rows[1:]:
        if row[3] != "train":
            row[1:3], row[4] = ["77", "c77"], "a new clinic"
    toy.write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    after = [domains_of("toy", sampler, 0).tolist() for sampler in (ByClass(), ByClass(classes=4), ByGroup())]
    assert after == before


def test_each_task_is_of_one_domain_or_of_the_rest(toy: Path) -> None:
    drawn = order_of("toy", ByGroup(), 0, 12)
    groups = {tuple({place // 20 for place in drawn.positions(task).tolist()}) for task in range(30)}
    # 3 images have no group, 10 or more have each of the three: the smallest of these is with the rest
    assert groups <= {(0,), (1,), (2,), (0, 1), (0, 2)} and len(groups) == 3
    assert type(order_of("toy", Shuffled(), 0, 12)) is Order


@pytest.mark.parametrize(
    ("sampler", "batch", "complaint"),
    [
        (ByGroup(), 14, "by_group takes 2 domains or more with the 14 training images of a task, but 0 of 3 have"),
        (ByClass(), 9, "by_class takes 2 domains or more with the 9 training images of a task, but 0 of 6 have"),
        (ByClass(classes=5), 20, "by_class takes 2 domains or more with the 20 training images of a task, but . of 2"),
    ],
)
def test_too_few_domains_are_refused(toy: Path, sampler: ByClass | ByGroup, batch: int, complaint: str) -> None:
    with pytest.raises(UserError, match=f"^sampler: on toy: {complaint}.*; lower train.batch, or take sampler random$"):
        order_of("toy", sampler, 0, batch)


def test_a_single_domain_is_refused(toy: Path) -> None:
    with pytest.raises(UserError) as error:
        order_of("toy", ByClass(classes=6), 0, 8)
    assert str(error.value) == (
        "sampler: on toy: by_class finds a single domain, so no two tasks would differ; give fewer classes, or take"
        " sampler random"
    )


@pytest.mark.parametrize(
    ("sampler", "what"), [(ByClass(), "labels"), (ByClass(classes=3), "labels"), (ByGroup(), "groups")]
)
def test_data_without_labels_or_groups_are_refused(toy: Path, sampler: ByClass | ByGroup, what: str) -> None:
    rows = [f"i{place},-1,,train,,00" for place in range(60)]
    toy.write_text("\n".join(["id,label,class,split,group,sha256", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        order_of("toy", sampler, 0, 4)
    assert str(error.value) == (
        f"sampler: on toy: {sampler.name} takes {what}, and no training image has one; take sampler random"
    )
