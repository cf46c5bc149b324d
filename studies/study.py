"""What every study has: finished runs as inputs, a table and its numbers as outputs, and a record of both."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.layout import RESULTS, run_dir
from gessl.records.step import Step

OUT = Path("studies/out")
HERE = Path(__file__).parent


def grids(configs: Iterable[Path]) -> list[Experiment]:
    """The experiments that files make together, or those of a batch, in its order."""
    return list(ExperimentBatch.merged(configs, {}).experiments.values())


def finished(run: str) -> bool:
    """Whether a run has been scored."""
    return bool(_tables(run))


def _tables(run: str) -> list[Path]:
    return sorted((RESULTS / "scores" / run).glob("*/*/scores.csv"))


def study(name: str, experiments: Iterable[Experiment]) -> Step:
    """The step that makes `studies/out/<name>/` of the finished runs; a study's own sources are inputs, too.

    Raises:
        UserError: a run's files were altered since they were made.
    """
    runs = [run for run in dict.fromkeys(cell.id for one in experiments for cell in one.runs()) if finished(run)]
    made = [file for run in runs for file in (*_tables(run), run_dir(run) / "encoder.safetensors")]
    return Step("study", name, OUT / name, inputs=[*sorted(HERE.glob("*.py")), *made], config={"runs": runs})


def write(step: Step, table: str, report: dict[str, Any], faults: Sequence[str]) -> None:
    """The table as Markdown, and the report with what is at fault as JSON."""
    step.path(f"{step.name}.md").write_text(table, encoding="utf-8")
    text = json.dumps({**report, "faults": list(faults)}, indent=1) + "\n"
    step.path(f"{step.name}.json").write_text(text, encoding="utf-8")


def faults(files: Iterable[Path]) -> Iterator[str]:
    """What studies found at fault, from their reports."""
    for file in files:
        for fault in json.loads(file.read_text(encoding="utf-8"))["faults"]:
            yield f"{file.stem}: {fault}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the reports named find at fault; 1 if there is any."""
    found = list(faults(map(Path, sys.argv[1:] if arguments is None else arguments)))
    for line in found:
        print(line, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
