"""What decided a step's outputs, as people read it: the same words in the trace, in the report and wherever else."""

from typing import Any

from gessl.files import read_json, sha256_json
from gessl.layout import MLFLOW_RUNS
from gessl.records.record import Record

SHORT = 12  # hex digits of a hash that people are shown


def code_facts(record: Record) -> str:
    """Commit, whether it had uncommitted changes, and the hash of the package's sources."""
    code = record["code"]
    commit = f"commit {code['commit'][:SHORT]}" if code.get("commit") else "no commit"
    return f"{commit}{' with uncommitted changes' if code.get('dirty') else ''}, sources {code['sources'][:SHORT]}"


def record_facts(record: Record) -> dict[str, str]:
    """What decided the outputs of `record`, text by name."""
    environment = record["environment"]
    libraries = environment.get("libraries") or {}
    versions = [f"{name} {libraries[name]}" for name in ("torch", "numpy") if libraries.get(name)]
    machine = environment.get("accelerator") or environment.get("processor") or "unknown processor"
    threads = [f"{environment['threads']} threads"] if "threads" in environment else []
    facts = {
        **({} if record["seed"] is None else {"seed": str(record["seed"])}),
        "config": _digest(record["config"]),
        "code": code_facts(record),
        "lock": (environment.get("lock") or "none")[:SHORT],
        "environment": ", ".join([f"python {environment.get('python')}", *versions, machine, *threads]),
        "took": f"{record['seconds']} s on {record['host']}, {record['started']}",
        "command": " ".join(record["command"]),
    }
    dataset = record["config"].get("dataset")
    if isinstance(dataset, dict):  # of fetch and prepare: the registry's entry
        sources = [str(file.get("source")) for file in dataset.get("files", [])]
        facts |= {"source": ", ".join(sources), "licence": str(dataset.get("licence"))}
    return facts


def _digest(config: dict[str, Any]) -> str:
    try:
        return sha256_json(config)[:SHORT]
    except ValueError:  # altered: it holds a number that JSON has no form for
        return "no JSON"


def mlflow_runs() -> dict[str, str]:
    """The MLflow runs that mirror records, by the record's id, as far as the mirrors of this project say."""
    found: dict[str, str] = {}
    for path in sorted(MLFLOW_RUNS.glob("*.json")):
        try:
            runs = read_json(path)["runs"]
            found |= {str(record): str(run) for record, run in runs.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a mirror may be lost or damaged: nothing here rests on it
    return found
