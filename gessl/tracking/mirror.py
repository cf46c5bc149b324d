"""One pass over the files of a grid, into MLflow."""

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gessl.advice import redo
from gessl.cluster.failed import failure_file
from gessl.errors import UserError
from gessl.files import atomic_json, has_content, read_json
from gessl.layout import MLFLOW_RUNS, RECORD, RESULTS, pin, report_dir, run_dir, work_dir
from gessl.records.record import Record, read_record
from gessl.tables.metrics import METRICS
from gessl.tables.scores import SCORES
from gessl.tracking.store import database_of, public, tracking_uri, tree_id
from gessl.tracking.values import data_version, params, points, scores

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

POINTS = 900  # metrics in one call; MLflow takes 1000 entities
PARAMS = 100  # params in one call
SMALL = 50 * 2**20  # bytes; a larger encoder is named by path and hash only
MIRRORED = {METRICS, "config.json", "encoder.safetensors", "scores.csv", "sigma-report.html"}  # of the outputs
RUN, KIND, RECORD_ID, STEP = "gessl.run", "gessl.kind", "gessl.record", "gessl.step"  # tags
TREE = "gessl.tree"  # a tag, too: several trees of results may share a store
DATA_VERSION = "gessl.data_version"  # a tag, too: the md5 in the DVC pin


@dataclass(frozen=True)
class SyncSummary:
    """What one pass found and did: runs in the mirror, how many of them are finished, points that are new."""

    store: str
    runs: int
    finished: int
    points: int

    def __str__(self) -> str:
        return f"{self.store}: {self.runs} runs, {self.finished} finished, {self.points} new points"


class Mirror:
    """One pass over the files of a grid's runs; `stopped` says that none of them is training any more."""

    def __init__(self, client: "MlflowClient", grid: str, runs: tuple[str, ...], stopped: bool) -> None:
        self._client, self._grid, self._runs, self._stopped = client, grid, runs, stopped
        self._new_points, self._tree = 0, tree_id()
        self._experiment = self._find_experiment()
        self._known = self._find_runs()
        tags = {run.info.run_id: run.data.tags for run in self._known.values()}
        self._mirrored = {own[RECORD_ID]: run for run, own in tags.items() if RECORD_ID in own}

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._grid)
        if found is None:
            database = database_of(tracking_uri())
            folder = (database.parent / "artifacts" / self._grid).as_uri() if database else None
            try:
                return str(self._client.create_experiment(self._grid, artifact_location=folder))
            except MlflowException:  # another tree's writer was quicker
                found = self._client.get_experiment_by_name(self._grid)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_runs(self) -> dict[tuple[str, str], "Run"]:
        known: dict[tuple[str, str], Run] = {}
        token, ours = None, f"tags.`{TREE}` = '{self._tree}'"
        while True:
            page = self._client.search_runs([self._experiment], ours, max_results=1000, page_token=token)
            known |= {(run.data.tags.get(KIND, ""), run.data.tags.get(RUN, "")): run for run in page}
            if not (token := page.token):
                return known

    def sync(self) -> SyncSummary:
        """Mirror every run that has something to show, then the report; what has a broken record is left out.

        Raises:
            UserError: names the first broken record, after the rest is mirrored.
        """
        shown: list[bool | None] = []
        broken: list[UserError] = []
        for run in self._runs:
            try:
                shown.append(self._run(run))
            except UserError as error:
                broken.append(error)
        record = read_record(report_dir(self._grid))
        if record is not None:
            try:
                self._report(record)
            except UserError as error:
                broken.append(error)
        self._write_links()
        if broken:
            raise broken[0]
        runs = sum(finished is not None for finished in shown)
        return SyncSummary(public(tracking_uri()), runs, shown.count(True), self._new_points)

    def _write_links(self) -> None:
        """For those who have a record: the run that mirrors it. The run's tags lead back."""
        links = {"store": public(tracking_uri()), "experiment": self._experiment, "runs": self._mirrored}
        path = MLFLOW_RUNS / f"{self._grid}.json"
        with contextlib.suppress(FileNotFoundError, ValueError):  # what is damaged is written anew
            if read_json(path) == links:
                return
        atomic_json(path, links)

    def _run(self, name: str) -> bool | None:
        """Mirror one pretraining, or an encoder; whether it is finished, or None where there is nothing yet."""
        record = read_record(run_dir(name))
        folder = work_dir(name) if record is None else run_dir(name)
        failed = record is None and failure_file(name).is_file()
        if record is None and not failed and not (folder / METRICS).is_file():
            return self._encoder(name)
        if record is not None:
            _require_as_recorded(record)
        run = self._current("pretrain", name, record, name)
        if record is None or RECORD_ID not in run.data.tags:
            self._log_points(run, folder / METRICS)
        if record is None:
            self._set_status(run, "FAILED" if failed else "KILLED" if self._stopped else "RUNNING")
            return False
        if RECORD_ID not in run.data.tags:
            self._complete(run, name, record)
        self._evaluations(name, run)
        return True

    def _encoder(self, name: str) -> bool | None:
        """Mirror an encoder from elsewhere, of which there are scores alone; None where there are none yet."""
        if not any((RESULTS / "scores" / name).glob(f"*/{RECORD}")):
            return None
        run = self._current("encoder", name, None, name)
        self._evaluations(name, run)
        self._set_status(run, "FINISHED")
        return True

    def _evaluations(self, name: str, run: "Run") -> None:
        for folder in sorted(path.parent for path in (RESULTS / "scores" / name).glob(f"*/{RECORD}")):
            evaluated = read_record(folder)
            if evaluated is not None:
                self._evaluation(name, folder, evaluated, run)

    def _current(self, kind: str, name: str, record: Record | None, title: str) -> "Run":
        """The mirror's run of that kind and name; one of results that were made again since is replaced."""
        found = self._known.get((kind, name))
        if found is not None and record is not None and found.data.tags.get(RECORD_ID, record["id"]) != record["id"]:
            self._client.delete_run(found.info.run_id)
            self._mirrored = {made: run for made, run in self._mirrored.items() if run != found.info.run_id}
            found = None
        if found is None:
            start = _milliseconds(record["started"]) if record else None
            tags = {RUN: name, KIND: kind, TREE: self._tree}
            found = self._client.create_run(self._experiment, start_time=start, tags=tags, run_name=title)
        return found

    def _log_points(self, run: "Run", path: Path) -> None:
        from mlflow.entities import Metric, RunTag

        batch: list[Metric] = []
        last = int(run.data.tags.get(STEP, -1))

        def flush() -> None:
            if batch:
                self._client.log_batch(run.info.run_id, metrics=batch, tags=[RunTag(STEP, str(last))])
                batch.clear()

        for point in points(path, last):
            if len(batch) + len(point.values) > POINTS:
                flush()
            moment = run.info.start_time + round(1000 * point.seconds)  # logged twice, a point is the same point
            batch += [Metric(key, value, moment, point.step) for key, value in point.values.items()]
            last = point.step
            self._new_points += 1
        flush()

    def _set_status(self, run: "Run", status: str, record: Record | None = None) -> None:
        if status == run.info.status:
            return
        if status == "RUNNING":
            self._client.update_run(run.info.run_id, status=status)
        else:
            end = _milliseconds(record["finished"]) if record else None
            self._client.set_terminated(run.info.run_id, status, end)

    def _complete(self, run: "Run", name: str, record: Record) -> None:
        """Settings, data version, artifacts and state of a finished run; the record's id goes last."""
        from mlflow.entities import Dataset, DatasetInput, Param
        from mlflow.exceptions import MlflowException

        identifier, folder = run.info.run_id, run_dir(name)
        settings = [Param(key, value) for key, value in sorted(params(record["config"]).items())]
        for start in range(0, len(settings), PARAMS):
            self._client.log_batch(identifier, params=settings[start : start + PARAMS])
        if (version := data_version(record)) is not None:
            source = json.dumps({"pin": pin(version[0]).as_posix(), "data_version": version[1]})
            dataset = Dataset(version[0], version[1][:36], "dvc", source)
            try:
                self._client.log_inputs(identifier, [DatasetInput(dataset, [])])
            except MlflowException:  # MLflow looks, then inserts: another writer of the same data set came between
                self._client.log_inputs(identifier, [DatasetInput(dataset, [])])
        for output in record["outputs"]:
            path = Path(output["path"])
            if path.name == "encoder.safetensors":
                self._client.set_tag(identifier, "gessl.encoder", output["path"])
                self._client.set_tag(identifier, "gessl.encoder_sha256", output["sha256"])
            if path.name == "config.json" or (path.name == "encoder.safetensors" and output["bytes"] < SMALL):
                self._client.log_artifact(identifier, str(path))
        self._finish(run, folder, record)

    def _finish(self, run: "Run", folder: Path, record: Record) -> None:
        identifier = run.info.run_id
        self._client.log_artifact(identifier, str(folder / "record.json"))
        for key in ("commit", "dirty"):
            self._client.set_tag(identifier, f"gessl.{key}", record["code"].get(key) or "none")
        if (version := data_version(record)) is not None:
            self._client.set_tag(identifier, DATA_VERSION, version[1])
        self._set_status(run, "FINISHED", record)
        self._client.set_tag(identifier, RECORD_ID, record["id"])
        self._mirrored[record["id"]] = identifier

    def _evaluation(self, name: str, folder: Path, bundle: Record, parent: "Run") -> None:
        """Mirror the scores of a run on one data set, of all protocols; `bundle` stands for them."""
        from mlflow.entities import Metric

        parts = list(dict.fromkeys(Path(entry["path"]).parent for entry in bundle["inputs"]))
        records = [record for record in map(read_record, parts) if record]
        for record in records:
            _require_as_recorded(record)
        run = self._current("evaluate", f"{name}/{folder.name}", bundle, f"{name} on {folder.name}")
        if run.data.tags.get("mlflow.parentRunId") != parent.info.run_id:
            self._client.set_tag(run.info.run_id, "mlflow.parentRunId", parent.info.run_id)
        if RECORD_ID not in run.data.tags:
            moment = _milliseconds(bundle["finished"])
            found = {key: value for part in parts for key, value in scores(part / SCORES).items()}
            metrics = [Metric(key, value, moment, 0) for key, value in found.items()]
            for start in range(0, len(metrics), POINTS):
                self._client.log_batch(run.info.run_id, metrics=metrics[start : start + POINTS])
            for part in parts:
                self._client.log_artifact(run.info.run_id, str(part / SCORES), part.name)
            self._finish(run, folder, bundle)
        self._mirrored |= {record["id"]: run.info.run_id for record in records}

    def _report(self, record: Record) -> None:
        folder = report_dir(self._grid)
        _require_as_recorded(record)
        run = self._current("report", self._grid, record, f"{self._grid} report")
        if RECORD_ID not in run.data.tags:
            self._client.log_artifact(run.info.run_id, str(folder / "sigma-report.html"))
            self._finish(run, folder, record)


def _require_as_recorded(record: Record) -> None:
    """Refuse to show what bears a record's id and is not what it names.

    Raises:
        UserError: a file that is mirrored was altered.
    """
    for output in record["outputs"]:
        path = Path(output["path"])
        if path.name in MIRRORED and not has_content(path, output["bytes"], output["sha256"]):
            raise UserError(f"{path}: altered since it was made, so it is not mirrored; {redo(path.parent)}")


def _milliseconds(moment: str) -> int:
    return round(1000 * datetime.fromisoformat(moment).timestamp())
