"""A record's file is an in-toto Statement whose predicate is SLSA provenance, so that tools of others read it.

Of the published shapes this is the one that is made for a single step: subjects and materials by content hash, and what
was asked for apart from what happened. Tools that verify, sign or store attestations (in-toto, cosign, GUAC) take it as
it is. A Workflow Run RO-Crate tells of a whole workflow; `gessl.audit.rocrate` writes one from these.

In code a record is one flat mapping. What the published shapes have no field for carries our prefix, as SLSA asks of
extensions. Sources: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md,
https://slsa.dev/spec/v1.0/provenance.
"""

from collections.abc import Mapping
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
_HOST = "urn:gessl:host:"


def statement(record: Mapping[str, Any]) -> dict[str, Any]:
    """The Statement of a flat record, with or without its `id`."""
    code, identity = record["code"], {"invocationId": record["id"]} if "id" in record else {}
    commit = {"gitCommit": code["commit"]} if code.get("commit") else {}
    sources = {"name": "gessl", "digest": {"sha256": code.get("sources", "")} | commit, "annotations": code}
    inputs = [_described(entry, "bytes", "record") for entry in record["inputs"]]
    return {
        "_type": STATEMENT,
        "subject": [_described(output, "bytes", "earlier") for output in record["outputs"]],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": record["schema"],
                "externalParameters": {key: record[key] for key in ("step", "name", "config", "seed")},
                "internalParameters": {key: record[key] for key in ("command", "environment", "notes")},
                "resolvedDependencies": [sources, *inputs],
            },
            "runDetails": {
                "builder": {"id": _HOST + record["host"]},
                "metadata": {
                    **identity,
                    "startedOn": record["started"],
                    "finishedOn": record["finished"],
                    "gessl_seconds": record["seconds"],
                },
            },
        },
    }


def flat_record(found: Any) -> dict[str, Any]:
    """The flat record of a Statement.

    Raises:
        ValueError: `found` is no Statement of ours.
    """
    try:
        build, details = (found["predicate"][part] for part in ("buildDefinition", "runDetails"))
        sources, inputs = build["resolvedDependencies"][0], build["resolvedDependencies"][1:]
        metadata, host = details["metadata"], details["builder"]["id"]
        if (found["_type"], found["predicateType"]) != (STATEMENT, PROVENANCE) or not host.startswith(_HOST):
            raise ValueError("not an in-toto Statement of a step of gessl")
        return {
            "id": metadata["invocationId"],
            "schema": build["buildType"],
            **{key: build["externalParameters"][key] for key in ("step", "name", "config", "seed")},
            **{key: build["internalParameters"][key] for key in ("command", "environment", "notes")},
            "inputs": [_plain(entry) for entry in inputs],
            "outputs": [_plain(entry) for entry in found["subject"]],
            "code": sources["annotations"],
            "started": metadata["startedOn"],
            "finished": metadata["finishedOn"],
            "seconds": metadata["gessl_seconds"],
            "host": host.removeprefix(_HOST),
        }
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not an in-toto Statement of a step of gessl ({type(error).__name__}: {error})") from None


def _described(entry: Mapping[str, Any], *facts: str) -> dict[str, Any]:
    """A file as a ResourceDescriptor."""
    annotations = {key: entry[key] for key in facts if key in entry}
    return {"name": entry["path"], "digest": {"sha256": entry["sha256"]}, "annotations": annotations}


def _plain(described: dict[str, Any]) -> dict[str, Any]:
    return {"path": described["name"], "sha256": described["digest"]["sha256"], **described["annotations"]}
