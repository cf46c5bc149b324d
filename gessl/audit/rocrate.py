"""A report and all that it comes from, as one folder to hand on: a Provenance Run Crate.

Every record becomes an action with its tool, inputs and outputs (https://w3id.org/ro/wfrun/provenance/0.5). Records,
tables, figures, scores, settings and pins are copied; raw data, arrays and tensors are named by their content hash
only, as `ni:` addresses (RFC 6920). Who or what started the steps is not recorded, so no engine and no agent is named.
"""

import base64
import io
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity, File
from rocrate.rocrate import ROCrate

from gessl.errors import UserError
from gessl.files import has_content, read_bounded
from gessl.layout import RAW, RECORD, report_dir
from gessl.records.chain import chain
from gessl.records.facts import SHORT, code_facts, record_facts
from gessl.records.record import FileState, Record, read_record

BULK = {".npy", ".npz", ".safetensors"}
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
WORKFLOW = Path("Snakefile")
SOURCE_BYTES = 1 << 20  # most bytes of one of its files
README = """# What made the σ-report {grid}

`results/report/{grid}/sigma-report.html` is the report; a click on a number shows what made it. `record.json` in each
folder of `results/` names what a step read and wrote, by SHA-256, and the code and environment that it ran in; its `id`
is the SHA-256 of the rest of it. `ro-crate-metadata.json` says the same in the words of the Provenance Run Crate.
Raw data, arrays and tensors are not here: `ni:///sha-256;` and the hash in base64 name their content.
"""
MEDIA = {
    ".csv": "text/csv", ".html": "text/html", ".json": "application/json", ".jsonl": "application/jsonl",
    ".svg": "image/svg+xml", ".tex": "application/x-tex", ".dvc": "application/yaml", ".yaml": "application/yaml",
    ".npy": "application/x-npy", ".npz": "application/x-npz", ".safetensors": "application/octet-stream",
}  # fmt: skip


def write_crate(grid: str, out: Path) -> int:
    """Write the crate of the report of `grid` into the new folder `out`; returns the number of its actions.

    Raises:
        UserError: there is no such report, a record is broken or was replaced, a file to copy was altered, or `out`
            exists.
    """
    records = _records(grid)
    if os.path.lexists(out):
        raise UserError(f"{out}: exists already; name a new folder")
    if not WORKFLOW.is_file():
        raise UserError(f"{WORKFLOW}: no such file here; run this in the project's root")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # which a killed attempt left
    try:
        _Builder(grid, records).build().write(unfinished)
        os.rename(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(records)


def _records(grid: str) -> list[Record]:
    folder = report_dir(grid)
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder}: no finished report; run `gessl report`, or name another grid")
    found = chain([record])
    lost = [digits for digits, one in found.items() if one is None]
    if lost:
        raise UserError(
            f"{folder}: made from record {lost[0][:SHORT]}, whose outputs were made again since; run the workflow again"
        )
    return [one for one in found.values() if one]


class _Builder:
    """Fills one crate; each file, tool and action is one entity."""

    def __init__(self, grid: str, records: list[Record]) -> None:
        self._grid, self._records = grid, records
        self._crate = ROCrate(version="1.1")
        self._crate.metadata.extra_terms["sha256"] = "https://w3id.org/ro/terms/workflow-run#sha256"
        self._tools: dict[str, ContextEntity] = {}

    def build(self) -> ROCrate:
        """The whole crate, not yet written."""
        crate = self._crate
        crate.name = f"σ-report {self._grid}: lineage"
        crate.description = (
            f"The σ-report of the grid {self._grid} and every step that led to it, back to the pinned raw data. Files"
            " that are not copied are named by their SHA-256."
        )
        crate.license = self._entity("https://spdx.org/licenses/Apache-2.0", "CreativeWork", name="Apache License 2.0")
        crate.datePublished = max(record["finished"] for record in self._records)
        crate.root_dataset["conformsTo"] = [
            self._entity(address, "CreativeWork", name=name, version=address.rsplit("/", 1)[1])
            for address, name in PROFILES.items()
        ]
        crate.metadata["conformsTo"] = [{"@id": "https://w3id.org/ro/crate/1.1"}, {"@id": list(PROFILES)[-1]}]
        about = {"name": "What this folder is", "encodingFormat": "text/markdown", "about": crate.root_dataset}
        crate.add_file(io.StringIO(README.format(grid=self._grid)), "README.md", properties=about)
        actions = [self._action(record) for record in self._records]
        crate.root_dataset["mentions"] = [self._run(self._workflow()), *actions]
        return crate

    def _entity(self, identifier: str, kind: str, /, **properties: Any) -> ContextEntity:
        return self._crate.add(ContextEntity(self._crate, identifier, {"@type": kind, **properties}))

    def _action(self, record: Record) -> ContextEntity:
        """A record as the action that it tells of."""
        facts = record_facts(record)
        own = _folder(record) / RECORD
        text = {"name": f"Lineage record of {record['step']} {record['name']}", "encodingFormat": MEDIA[".json"]}
        action = self._entity(
            f"#{record['id']}",
            "CreateAction",
            name=f"{record['step']} {record['name']}",
            description=f"{facts['command']} ({facts['environment']}; lock {facts['lock']}; config {facts['config']})",
            startTime=record["started"],
            endTime=record["finished"],
            actionStatus="http://schema.org/CompletedActionStatus",
        )
        action["instrument"] = self._tool(record)
        action["object"] = [*self._files(record["inputs"]), *self._seed(record)]
        action["result"] = self._files(record["outputs"])
        action["subjectOf"] = self._crate.add_file(own, own.as_posix(), properties=text)
        return action

    def _tool(self, record: Record) -> ContextEntity:
        """The verb of `gessl` that made the record, of that version of the sources."""
        identifier = f"#gessl-{record['step']}-{record['code']['sources'][:SHORT]}"
        if identifier not in self._tools:
            self._tools[identifier] = self._entity(
                identifier,
                "SoftwareApplication",
                name=f"gessl {record['step']}",
                softwareVersion=code_facts(record),
                softwareRequirements=record_facts(record)["environment"],
            )
        return self._tools[identifier]

    def _seed(self, record: Record) -> list[ContextEntity]:
        seed = record["seed"]
        return [] if seed is None else [self._entity(f"#seed-{seed}", "PropertyValue", name="seed", value=seed)]

    def _files(self, entries: Iterable[FileState]) -> list[File]:
        return [self._file(entry) for entry in entries]

    def _file(self, entry: FileState) -> File:
        path, digest = Path(entry["path"]), entry["sha256"]
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise UserError(f"{path}: its record states no SHA-256 of it; `gessl audit` says what was altered")
        facts = {
            "name": path.as_posix(),
            "sha256": digest,
            "contentSize": str(entry["bytes"]),
            "encodingFormat": MEDIA.get(path.suffix, "application/octet-stream"),
        }
        if _bulky(path):
            if os.path.lexists(path) and not has_content(
                path, entry["bytes"], digest
            ):  # it may have been left elsewhere
                raise UserError(f"{path}: not the file that its record names; `gessl audit` says what was altered")
            return self._crate.dereference(_address(digest)) or self._crate.add_file(_address(digest), properties=facts)
        known = self._crate.dereference(path.as_posix())
        if known is not None and known["sha256"] == digest:
            return known
        if path.is_absolute():
            raise UserError(f"{path}: outside the project, so it cannot be handed on with it")
        if not has_content(path, entry["bytes"], digest):
            raise UserError(f"{path}: not the file that its record names; `gessl audit` says what was altered")
        return self._crate.add_file(path, path.as_posix(), properties=facts)

    def _source(self, path: Path, facts: dict[str, Any]) -> File:
        """A file of the project that no record names: read here, within bounds, since the library copies anything."""
        return self._crate.add_file(io.BytesIO(read_bounded(path, SOURCE_BYTES)), path.as_posix(), properties=facts)

    def _workflow(self) -> File:
        """The workflow as it lies in the project now: the commits of the tools say which version ran."""
        kinds = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
        text = {"@type": kinds, "name": "The workflow of gessl", "encodingFormat": "text/plain"}
        workflow = self._source(WORKFLOW, text)
        for path in sorted(Path("workflow/rules").glob("[!.]*.smk")):
            text = {"name": f"Rules of the workflow: {path.stem}", "encodingFormat": "text/plain"}
            self._source(path, text)
        tools = list(reversed(self._tools.values()))  # from the raw data on
        workflow["hasPart"] = tools
        workflow["step"] = [
            self._entity(f"#step-{place}", "HowToStep", name=tool["name"], position=str(place), workExample=tool)
            for place, tool in enumerate(tools, 1)
        ]
        workflow["programmingLanguage"] = self._entity(
            "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
            "ComputerLanguage",
            name="Snakemake",
            identifier={"@id": "https://doi.org/10.1093/bioinformatics/bts480"},
            url={"@id": "https://snakemake.readthedocs.io"},
        )
        self._crate.mainEntity = workflow
        return workflow

    def _run(self, workflow: File) -> ContextEntity:
        """All steps as one action of the workflow: from the pins to the report."""
        pins = {
            entry["path"]: entry
            for record in self._records
            for entry in record["inputs"]
            if not entry["record"] and not _bulky(Path(entry["path"]))
        }
        run = self._entity(
            "#workflow-run",
            "CreateAction",
            name=f"All steps that led to the σ-report {self._grid}",
            description="From the first step's start to the last one's end, whoever or whatever started them.",
            startTime=min(record["started"] for record in self._records),
            endTime=max(record["finished"] for record in self._records),
            actionStatus="http://schema.org/CompletedActionStatus",
        )
        run["instrument"] = workflow
        run["object"] = self._files(pins.values())
        run["result"] = self._files(self._records[0]["outputs"])
        return run


def _folder(record: Record) -> Path:
    """Where the record lies: the innermost folder with a record around its outputs."""
    paths = (Path(output["path"]) for output in record["outputs"])
    for folder in (folder for path in paths for folder in path.parents):
        if (folder / RECORD).is_file():
            return folder
    raise UserError(f"{record['step']} {record['name']}: its record names no output; run the workflow again")


def _bulky(path: Path) -> bool:
    return path.suffix in BULK or (path.is_relative_to(RAW) and path.suffix != ".dvc")


def _address(digest: str) -> str:
    """The `ni:` address of content with this SHA-256 (RFC 6920)."""
    return "ni:///sha-256;" + base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
