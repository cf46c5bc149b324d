"""`gessl.load`: the encoder of a finished run."""

from pathlib import Path

from gessl.errors import UserError
from gessl.layout import RECORD, run_dir
from gessl.nets.encoder import Encoder, load_encoder


def load(run: str | Path) -> Encoder:
    """The trained encoder of a run.

    Args:
        run: its id, for one in `results/runs/` of the working directory, or its folder.

    Returns:
        On the CPU, in eval mode: images [n, C, H, W] in [0, 1] to features [n, F]. It scales by the mean and standard
        deviation of its data set itself.

    Raises:
        UserError: there is no such run, it is not finished, or its encoder cannot be read.
    """
    folder = Path(run) if Path(run).is_dir() else run_dir(str(run))
    if not folder.is_dir():
        raise UserError(f"{run}: no such run here; give an id that `gessl check` lists, or the folder of a run")
    if not (folder / RECORD).is_file():  # it is written last
        raise UserError(f"{folder}: no finished run; train it with `gessl pretrain`, or give the folder of another")
    return load_encoder(folder / "encoder.safetensors")
