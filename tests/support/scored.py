"""A stand-in encoder, a few images with a class to see, and protocols as their yamls have them."""

import json

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from gessl.layout import file_stem
from gessl.protocols import protocol_class
from gessl.protocols._suite import SigmaSuite
from gessl.protocols.contract import Protocol, Subject, Target
from gessl.typed import typed
from tests.conftest import ROOT

CLASSES, PER_CLASS = 6, 40


@pytest.fixture
def encoder():
    """Small, with batch normalisation, whose statistics differ from those of any batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        network(torch.rand(64, 1, 8, 8))
    return network.eval()


@pytest.fixture
def images():
    """uint8 [240, 1, 8, 8]; image i is of class i % 6: a bright row in noise."""
    random = np.random.default_rng(0)
    images = random.integers(0, 140, (CLASSES * PER_CLASS, 1, 8, 8))
    for i in range(len(images)):
        images[i, 0, i % CLASSES] += 90
    return images.astype(np.uint8)


@pytest.fixture
def suite():
    """3 tasks of 4 classes with 6, 5 and 8 images per class in train, val and test."""
    random = np.random.default_rng(1)
    classes = np.stack([random.permutation(CLASSES)[:4] for _ in range(3)])

    def positions(first, last, count):
        rows = [[random.permutation(np.arange(first, last))[:count] * CLASSES + c for c in row] for row in classes]
        return np.array(rows)

    return SigmaSuite(classes, positions(0, 14, 6), positions(14, 24, 5), positions(24, 40, 8))


def protocol(name: str, **values: object) -> Protocol:
    """The protocol with the values of its yaml, but for these."""
    path = ROOT / "config/protocols" / f"{file_stem(name)}.yaml"
    given = yaml.safe_load(path.read_text(encoding="utf-8")) | values
    return typed(protocol_class(name), json.loads(json.dumps(given)))


def scored(
    one: Protocol, features, *, tasks=None, encoder=None, images=None, labels=None, train=None, test=None, classes=0
):
    """Score features by a protocol, with what it takes of a target."""
    target = target_of(images=images, labels=labels, train=train, test=test, classes=classes)
    return one.score(Subject(encoder, features), target, tasks or {}, 0)


def target_of(*, images=None, labels=None, train=None, val=None, test=None, classes=0, name="toy"):
    """A target of which nothing need be there."""
    parts = (torch.arange(0) if part is None else part for part in (labels, train, val, test))
    return Target(images, *parts, classes, name)
