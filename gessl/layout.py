"""Where things lie, relative to the project's root (the working directory)."""

from pathlib import Path

RAW = Path("data/raw")
WEIGHTS = Path("data/encoders")  # of encoders from elsewhere
RESULTS = Path("results")
STUDIES = RESULTS / "studies"  # registered ones: what was written down, and that all runs are there
MLFLOW_RUNS = Path("mlflow/runs")  # per grid: which MLflow run mirrors which record
WORK = Path("work")  # checkpoints of unfinished runs: outside Snakemake's outputs, which it deletes before a retry
LOCK = Path("requirements.lock")
DATASETS = Path("config/datasets")
ENCODERS = Path("config/encoders")
METHODS = Path("config/methods")
TIMES = Path("config/times")  # how long steps take, by experiment, for runs that are to be as long as others
RECIPES = Path("config/recipes")
VIEWS = Path("config/views")
PROTOCOLS = Path("config/protocols")
REFERENCES = Path("config/reference")
RECORD = "record.json"
CHECKPOINT = "checkpoint.safetensors"  # the whole state that a trunk leaves for its branches
LISTING = "listing.csv"  # of the pictures in a raw folder that `gessl data add` made


DEPTHS = {"tasks": 2, "scores": 3, "studies": 2}
"""How deep below its kind a step's folder lies in the results, where that is more than one."""


def step_folder(path: str) -> str:
    """The folder in which the step lies that made `path`, `results/<kind>/…`; `path` itself where it lies above."""
    parts = path.split("/")
    return "/".join(parts[: 2 + DEPTHS.get(parts[1], 1)]) if len(parts) > 1 else path


def raw_dir(dataset: str) -> Path:
    return RAW / dataset


def pin(dataset: str) -> Path:
    """The DVC pin: a small file in git that holds the content hash of the raw folder."""
    return RAW / f"{dataset}.dvc"


def manifest_dir(dataset: str) -> Path:
    """The list of the raw files, and the record of their fetch, which may not lie in the pinned folder itself."""
    return RESULTS / "raw" / dataset


def data_dir(dataset: str) -> Path:
    return RESULTS / "data" / dataset


def tasks_dir(dataset: str, seed: int) -> Path:
    """Of the tasks that all protocols drew of a data set under a seed; a folder of its own for each protocol."""
    return RESULTS / "tasks" / f"{dataset}-s{seed}"


def run_dir(run: str) -> Path:
    return RESULTS / "runs" / run


def scores_dir(run: str, target: str) -> Path:
    """Of the scores of a run on a data set; a folder of its own for each protocol."""
    return RESULTS / "scores" / run / target


def report_dir(grid: str) -> Path:
    return RESULTS / "report" / grid


def registration_dir(study: str) -> Path:
    """Of what an experiment wrote down before it was scored."""
    return STUDIES / study / "registration"


def unsealed_dir(study: str) -> Path:
    """Of the file that says that all of a registered study's runs are there."""
    return STUDIES / study / "unsealed"


def work_dir(run: str) -> Path:
    return WORK / run


def fetch_dir(dataset: str) -> Path:
    """Of downloads that are not whole yet."""
    return WORK / "fetch" / dataset


def prepare_dir(dataset: str) -> Path:
    """Of the pictures of a data set whose preparation is not finished."""
    return WORK / "prepare" / dataset


def scoring_dir(run: str, target: str, protocol: str) -> Path:
    """What a protocol that trains has so far, of a run on a data set."""
    return WORK / "scores" / run / target / protocol


def lease_dir(run: str) -> Path:
    """Who makes the run; outside `work_dir`, which goes when the run is made."""
    return WORK / "leases" / run


def protocol_id(stem: str) -> str:
    """The id of the protocol in the file of that name: `linear__wmse_v1` is `linear/wmse-v1`."""
    return stem.replace("__", "/").replace("_", "-")


def file_stem(protocol: str) -> str:
    """The name of a protocol's file, and of its folders: `linear/wmse-v1` is `linear__wmse_v1`."""
    return protocol.replace("/", "__").replace("-", "_")
