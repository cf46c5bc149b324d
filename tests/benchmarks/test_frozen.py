"""`python -m benchmarks.frozen` on few features: both sides of each pair give the same results."""

import torch

from benchmarks import frozen


def test_what_is_timed_gives_the_same_results(capsys, monkeypatch):
    monkeypatch.setattr(
        frozen.LinearProbe, "fit", lambda probe, features, labels, classes, seed: features
    )  # tested elsewhere
    words = "--images 1500 --test 500 --features 16 --episodes 20 --rounds 1 --fitted 100 --threads"
    frozen.main([*words.split(), str(torch.get_num_threads())])
    _, table = capsys.readouterr().out.split("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [(row[0], row[-1]) for row in rows] == [
        ("5-nn", "100.00%"),
        ("200-nn, weighted", "100.00%"),
        ("20 episodes, 5-way 5-shot", "100.00%"),
        ("45 penalties", "100.00%"),
        ("linear", "–"),
        ("all", "–"),
    ]


def test_the_features_tell_the_classes_apart_but_not_at_once():
    given = frozen.problem(1500, 500, 64, 50)
    assert 0.3 < frozen.plain_loop(given.features, given.episodes).mean() < 0.99
    assert given.episodes.query.min() >= 1000
    drawn = given.labels[given.episodes.support]
    assert torch.equal(drawn, torch.from_numpy(given.episodes.classes)[..., None].expand_as(drawn))
