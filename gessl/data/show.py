"""`gessl data show`: a page with some pictures of each class, and views of them, for people to look at."""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gessl.data.arrays import read_card, read_index
from gessl.data.overlap import described, read_overlap
from gessl.data.stores import Store, for_views, open_store
from gessl.data.views import ViewPolicy
from gessl.errors import UserError
from gessl.files import atomic_text
from gessl.rng import generator, numpy_generator

CLASSES, EACH, WIDTH = 50, 8, 96
"""Most classes, pictures of each, and pixels across on the page."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
img { width: 96px; height: 96px; object-fit: contain; margin: 0 2px 2px 0; image-rendering: pixelated }
figure { display: inline-block; margin: 0 1rem 1rem 0 }
figcaption { font-size: 12px; max-width: 12rem; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } }
"""


def show(name: str, policies: tuple[ViewPolicy, ...], out: Path) -> None:
    """Write the page.

    Args:
        name: of a prepared data set.
        policies: views that are drawn of each picture; none for pictures alone.
        out: the file.

    Raises:
        UserError: the data set is not prepared.
    """
    card, index, store = read_card(name), read_index(name), open_store(name)
    rng = numpy_generator(0, "show", name)
    sections = []
    for place, label in enumerate([*card["classes"], ""][:CLASSES]):
        rows = np.flatnonzero(index["class"] == label)
        chosen = np.sort(rng.permutation(rows)[:EACH])
        if len(chosen):
            pictures, drawn = store[chosen], _views(store, chosen, policies, place)
            figures = "".join(
                _figure(index["id"][row], index["split"][row], [pictures[n], *(view[n] for view in drawn)])
                for n, row in enumerate(chosen)
            )
            title = html.escape(label) or "no label"
            sections.append(f"<h2>{title} <small>({len(rows)})</small></h2>\n{figures}\n")
    if not sections:
        raise UserError(f"{name}: holds no image")
    more = f"<p>The first {CLASSES} of {len(card['classes'])} classes.</p>" if len(card["classes"]) > CLASSES else ""
    views = f", each with {len(policies)} views of it" if policies else ""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(name)}</title>'
    about = f"<h1>{html.escape(card['title'])}</h1><p>{card['images']} images{views}.</p>{more}"
    about += _overlap(name, index, store)
    atomic_text(out, f"{head}<style>{STYLE}</style>{about}\n{''.join(sections)}</html>\n")


def _overlap(name: str, index: dict[str, NDArray[Any]], store: Store) -> str:
    """What is in two parts, or looks so, with some of these pictures next to each other."""
    overlap = read_overlap(name)
    if overlap is None:
        return ""
    rows = {own: row for row, own in enumerate(index["id"].tolist())}
    lines = "".join(f"<p>{html.escape(line)}.</p>" for line in described(overlap))
    figures = [
        _figure(f"{one['id']} = {one['other']}", f"{one['bits']} bits", [store[np.array(rows[own])] for own in both])
        for pair in overlap["pairs"]
        for one in pair["examples"]
        if rows.keys() >= {*(both := (one["id"], one["other"]))}
    ]
    return f"{lines}{''.join(figures)}"


def _views(
    store: Store, positions: NDArray[np.int64], policies: tuple[ViewPolicy, ...], key: int
) -> list[NDArray[np.uint8]]:
    """One draw of each policy, uint8 [n, C, h, w] each."""
    if not policies:
        return []
    (made,) = for_views(store, policies).load(positions, policies, [generator(0, "show", key)]).views()
    return [_bytes(view) for group in (made.views, made.crops) if group is not None for view in group]


def _bytes(views: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = views.mul(255).round().byte().numpy()
    return pixels


def _figure(name: str, split: str, pictures: list[NDArray[np.uint8]]) -> str:
    shown = "".join(f'<img src="{_uri(picture)}" alt="">' for picture in pictures)
    return f"<figure>{shown}<figcaption>{html.escape(name)} ({html.escape(split)})</figcaption></figure>"


def _uri(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    rows = np.ascontiguousarray(picture.transpose(1, 2, 0))
    Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
