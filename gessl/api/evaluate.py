"""`gessl.evaluate`: the pipeline's protocols on any encoder, without a run, an experiment or a record."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gessl.api._arrays import GivenImages, features_given, is_features, require_whole
from gessl.api._encoders import as_module, device_of, embedded, in_eval_mode
from gessl.api._table import Row, Table
from gessl.api._targets import Given, given
from gessl.api.sigma import Model
from gessl.data.stores import Store
from gessl.errors import UserError
from gessl.evaluation.baselines import Pixels
from gessl.evaluation.choice import CHOICE, freeze, read_choice
from gessl.grid.values import load_protocol
from gessl.home import PACKAGE
from gessl.layout import PROTOCOLS
from gessl.methods.learner import seeded_init
from gessl.nets.encoder import Encoder
from gessl.protocols.contract import ABILITIES, Protocol, Subject, can_score, chooses, draws_tasks, takes_features
from gessl.protocols.embed import fitted, frozen
from gessl.rng import generator
from gessl.tables.scores import Score

DEFAULT = ("knn/5nn-euclid", "linear/wmse-v1")
WANTS = ABILITIES | {"labels", "shared classes"}
"""What can be had here of what protocols want."""
BASELINES = ("pixels", "untrained")


class _Scored(NamedTuple):
    """What is scored: a module, or None of features alone; its features, if given; images as it takes them."""

    name: str
    module: nn.Module | None
    features: Tensor | None
    images: Store | None


def evaluate(
    encoder: Model,
    data: str | tuple[Any, Any, Any],
    protocols: Sequence[str | Mapping[str, Any]] = DEFAULT,
    *,
    baselines: Sequence[Literal["pixels", "untrained"]] = (),
    seed: int = 0,
    batch: int = 512,
) -> Table:
    """Score an encoder by protocols of the pipeline, with the numbers that the pipeline would give.

    Nothing is written, and nothing is recorded: for numbers that others are to trust, use an experiment.

    Args:
        encoder: from images to features, or features [n, d] of all images of `data`. It is left as it was.
        data: the name of a data set that is prepared in the working directory; or arrays (images, labels, split):
            uint8 [n, C, H, W] (None where features are given), labels as of `gessl.sigma`, and "train", "val" or
            "test" for each image [n].
        protocols: ids, such as "knn/5nn-euclid", with the values of `config/protocols/`; or, as in an experiment, a
            mapping with an id as `protocol`, and other values of the keys that are free.
        baselines: "pixels", the images themselves; "untrained", the backbone of a run's encoder as it starts.
        seed: of the tasks that are drawn, of what is drawn while scoring, and of the untrained weights.
        batch: images that are embedded at a time.

    Raises:
        UserError: a bad argument, features that are not finite, or data or an encoder that lack what a protocol takes.
    """
    known = given(data)
    _require_list("protocols", protocols)
    _require_list("baselines", baselines)
    require_whole("seed", seed, 0)
    asked = [_protocol(each) for each in protocols]
    if not asked:
        raise UserError("protocols: none; name one")
    for protocol in asked:
        _require_fit(protocol, known)
    loaded = [_loaded(encoder, known), *(_baseline(name, encoder, known, seed) for name in baselines)]
    try:
        return Table([row for one in loaded for row in _rows(one, known, asked, seed, batch)])
    finally:
        for store in (known.images, *(one.images for one in loaded)):
            if store is not None:
                store.close()


def _require_list(key: str, names: object) -> None:
    if isinstance(names, str):
        raise UserError(f"{key}: {names!r} is no list; give [{names!r}]")


def _protocol(asked: str | Mapping[str, Any]) -> Protocol:
    values = {"protocol": asked} if isinstance(asked, str) else dict(asked)
    name = values.pop("protocol", None)
    if not isinstance(name, str):
        raise UserError("protocols: a mapping without an id; give it one as 'protocol'")
    here = PROTOCOLS.is_dir()
    protocol = load_protocol(name, values, PROTOCOLS if here else PACKAGE.parent / PROTOCOLS)
    lacking = protocol.wants - WANTS
    if lacking:
        raise UserError(f"protocol {name}: wants {', '.join(sorted(lacking))}, which only an experiment can give it")
    return protocol


def _require_fit(protocol: Protocol, known: Given) -> None:
    for misfit in protocol.misfits(known.supply):
        key = f"{misfit.keys[0]}: " if misfit.keys else ""
        raise UserError(f"{known.name}: protocol {protocol.id}: {key}{misfit.text}")


def _loaded(encoder: Model, known: Given) -> _Scored:
    if is_features(encoder):
        features, count = features_given(encoder, "encoder").float(), len(known.columns["label"])
        if len(features) != count:
            raise UserError(f"encoder: features of {len(features)} images, but {known.name} has {count}")
        return _Scored("encoder", None, features, None)
    module = as_module(encoder)
    if known.images is None:
        raise UserError("data: no images, but encoder is no array of features; give the images")
    return _Scored("encoder", module, None, _as_taken(encoder, known.images, known.name))


def _as_taken(encoder: object, images: Store, name: str) -> Store:
    """Images as a run's encoder takes them; any other takes them as they are."""
    if not isinstance(encoder, Encoder):
        return images
    return fitted(images, channels=encoder.mean.numel(), size=encoder.size, cropped=encoder.cropped, where=name)


def _baseline(name: str, encoder: Model, known: Given, seed: int) -> _Scored:
    if name not in BASELINES:
        raise UserError(f"baselines: {name!r} is unknown; choose {' or '.join(BASELINES)}")
    if known.images is None:
        raise UserError(f"baselines: {name} reads images, but data has none; give them")
    _, channels, height, width = known.images.shape
    if name == "pixels":
        return _Scored(name, Pixels(channels, (height, width)).eval(), None, known.images)
    if not isinstance(encoder, Encoder):
        raise UserError(
            "baselines: 'untrained' is for an encoder that gessl.load gave, whose start is known; score your own "
            "network, as it is before training, as an encoder"
        )
    mean, std = encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()
    with seeded_init(generator(seed, "encoder")):
        fresh = Encoder(encoder.backbone_name, mean, std, encoder.size, encoder.lab)
    fresh.cropped = encoder.cropped
    fresh = fresh.eval().to(device_of(encoder))
    return _Scored(name, fresh, None, _as_taken(fresh, known.images, known.name))


def _rows(one: _Scored, known: Given, asked: Sequence[Protocol], seed: int, batch: int) -> Iterator[Row]:
    module = one.module or nn.Identity()
    trainable = one.module is not None and next(module.parameters(), None) is not None
    abilities = ABILITIES if trainable else frozenset({"features"})
    fitting = [protocol for protocol in asked if can_score(protocol, abilities)]
    if one.name == "encoder" and len(fitting) < len(asked):
        refused = next(protocol.id for protocol in asked if protocol not in fitting)
        raise UserError(f"encoder: {refused} trains it further; give a torch module with parameters")
    features = one.features
    if features is None:
        features = torch.empty(0, 0, device=device_of(module))
        if any(takes_features(protocol) for protocol in fitting):
            assert one.images is not None
            features = embedded(module, GivenImages(one.images), batch, one.name)
    target = known.target(one.images, features.device)
    with in_eval_mode(module), torch.enable_grad():
        for protocol in fitting:
            with frozen(module):
                scores = _scores(protocol, Subject(module, features), target, known, seed)
            yield from (_row(one.name, score) for score in scores)


def _scores(protocol: Protocol, subject: Subject, target: Any, known: Given, seed: int) -> list[Score]:
    """As the pipeline's step has it: what is chosen on val is in a file before test is opened."""
    drawn = protocol.draw(known.pools, seed) if draws_tasks(protocol) else None
    tasks = drawn.arrays if drawn else {}
    if chooses(protocol):
        with TemporaryDirectory() as folder:
            freeze(Path(folder, CHOICE), protocol, subject, target, seed)
            tasks = {**tasks, **read_choice(Path(folder, CHOICE))}
    scores = protocol.score(subject, target, tasks, seed)
    if not scores:
        raise UserError(f"{known.name}: {protocol.id} gives no score; leave it out")
    return scores


def _row(subject: str, score: Score) -> Row:
    value, lo, hi, n, _ = score.interval
    return Row(subject, score.protocol, score.task, score.metric, value, lo, hi, n, score.unit, score.better)
