"""`gessl tasks`: what protocols draw of a data set once per seed, so that all subjects are scored on the same."""

from pathlib import Path

import numpy as np

from gessl.data.arrays import read_index
from gessl.errors import UserError, memory_for
from gessl.evaluation.spec import TasksSpec, protocol_settings
from gessl.evaluation.tasks import CARD, TASKS
from gessl.files import atomic_json
from gessl.layout import RESULTS, data_dir, file_stem, tasks_dir
from gessl.protocols.contract import Protocol, draws_tasks
from gessl.protocols.pools import Pool, pools_of
from gessl.records.bundle import bundle
from gessl.records.current import is_current
from gessl.records.step import Step

LESS = "lower the number of tasks that the protocols draw, or free memory"


def draw(spec: TasksSpec) -> None:
    """Write `results/tasks/<dataset>-s<seed>/<protocol>/` (docs/formats.md) for those that draw tasks.

    What is there and current stays as it is.

    Raises:
        UserError: the data set is not prepared, or has too few images or classes for the settings; a seed below 0.
    """
    dataset, seed, protocols = spec.dataset, spec.seed, spec.protocols
    if seed < 0:
        raise UserError(f"{dataset}: seed {seed}; give 0 or more")
    drawing = [protocol for protocol in protocols if draws_tasks(protocol)]
    folder = tasks_dir(dataset, seed)
    with memory_for(f"{folder.name}: drawing tasks", LESS):
        made = [_draw(dataset, seed, protocol) for protocol in drawing]
    bundle(folder, made, {"protocols": [protocol_settings(protocol) for protocol in drawing]}, {})


def _draw(dataset: str, seed: int, protocol: Protocol) -> Path:
    out, config = tasks_dir(dataset, seed) / file_stem(protocol.id), protocol_settings(protocol)
    if is_current("tasks", out, config):
        return out / TASKS
    inputs = [data_dir(dataset) / name for name in ("index.csv", "card.json")]
    name = out.relative_to(RESULTS / "tasks").as_posix()
    with Step("tasks", name, out, inputs=inputs, config=config, seed=seed) as step:
        tasks = protocol.draw(_pools(dataset), seed)
        assert tasks is not None
        np.savez(step.path(TASKS), **tasks.arrays)  # type: ignore[arg-type]
        atomic_json(step.path(CARD), {"dataset": dataset, "seed": seed, **config, "drawn": tasks.facts})
    return out / TASKS


def _pools(dataset: str) -> dict[str, Pool]:
    return pools_of(dataset, read_index(dataset, "label", "split", "group"))
