"""The files of a registered study, and the seal: no arm is scored before all of its runs are there.

`gessl register` writes `registration.json`, before any score of an arm is there. `unseal` writes `unsealed.json` from
it and from the encoders of all runs, so it can only be made when they are trained. Each evaluation of an arm has that
file among its inputs. So the records' chain, and no date, shows that what was registered was there before the scores.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gessl.errors import UserError
from gessl.files import atomic_json, read_json, reason, sha256_file
from gessl.layout import RECORD, STUDIES, registration_dir, run_dir, unsealed_dir
from gessl.records.record import read_record
from gessl.records.step import Step

REGISTRATION, UNSEALED = "registration.json", "unsealed.json"
ENCODER = "encoder.safetensors"
Registration = dict[str, Any]


def registration_file(study: str) -> Path:
    """What was registered."""
    return registration_dir(study) / REGISTRATION


def unsealed_file(study: str) -> Path:
    """What says that all runs are there, and which."""
    return unsealed_dir(study) / UNSEALED


def study_files(study: str) -> list[Path]:
    """Those of the two that are there."""
    return [path for path in (registration_file(study), unsealed_file(study)) if path.is_file()]


def read_registration(study: str) -> Registration | None:
    """What was registered under an experiment's name; None where nothing was.

    Raises:
        UserError: the file cannot be read, or is not what its record says was registered.
    """
    path = registration_file(study)
    try:
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("runs"), list):
            raise ValueError("no list of runs")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        text = f"{path}: cannot be read ({reason(error):.200}); restore it from a copy, for what it says was agreed on"
        raise UserError(text) from None
    record = read_record(path.parent)
    if record is None:
        raise UserError(f"{path}: has no record, for it was cut short; gessl register FILE writes it again")
    if record["config"] != found:
        text = f"{path}: is not what was registered; restore it from a copy (`config` in its {RECORD} has it, too)"
        raise UserError(text)
    return found


def is_registered(study: str) -> bool:
    """Whether a registration is there, whole; what a killed one left does not count."""
    return (registration_dir(study) / RECORD).is_file() and read_registration(study) is not None


def write_registration(study: str, registration: Registration, pins: Iterable[Path]) -> Path:
    """Freeze what is to be tested, on the data of these pins; its record is the first link of the study's chain."""
    with Step("register", f"{study}/registration", registration_dir(study), inputs=pins, config=registration) as step:
        atomic_json(step.path(REGISTRATION), registration)
    return registration_file(study)


def unseal(study: str) -> Path:
    """Write `unsealed.json`, which every evaluation of an arm reads.

    Raises:
        UserError: nothing is registered under that name, or a run of the study is not trained yet.
    """
    registration = read_registration(study)
    if registration is None:
        raise UserError(f"{study}: is not registered; gessl register FILE writes down what it is to test")
    runs = registration["runs"]
    lacking = [run for run in runs if not (run_dir(run) / RECORD).is_file()]
    if lacking:
        raise UserError(
            f"{study}: {len(lacking)} of {len(runs)} runs of this registered study are not trained yet ({lacking[0]}"
            f"{', …' if len(lacking) > 1 else ''}); its test data stay sealed until they are"
        )
    files = [run_dir(run) / ENCODER for run in runs]
    inputs = [registration_file(study), *files]
    with Step("unseal", f"{study}/unsealed", unsealed_dir(study), inputs=inputs, config={"study": study}) as step:
        hashes = {entry["path"]: entry["sha256"] for entry in step.inputs}
        found = {run: hashes[path.as_posix()] for run, path in zip(runs, files, strict=True)}
        atomic_json(step.path(UNSEALED), {"registration": sha256_file(registration_file(study)), "runs": found})
    return unsealed_file(study)


def seals(run: str) -> list[Path]:
    """What an evaluation of the run has to read first: `unsealed.json` of each registered study that it is an arm of.

    Raises:
        UserError: one of them is sealed still.
    """
    found = [unsealed_file(study) for study in _studies_of(run)]
    for path in found:
        if not path.is_file():
            study = path.parent.parent.name
            raise UserError(
                f"{run}: is an arm of the registered study {study}, whose test data are sealed until all of its runs"
                f" are trained; then gessl unseal {study}"
            )
    return found


def _studies_of(run: str) -> Iterator[str]:
    """The names of the studies in this project that have the run."""
    for folder in sorted(STUDIES.glob("[!.]*")):
        study = folder.name
        registration = read_registration(study)
        # a replay has the inputs of its step alone
        if run in (registration["runs"] if registration else _unsealed_runs(study)):
            yield study


def _unsealed_runs(study: str) -> list[str]:
    try:
        return list(read_json(unsealed_file(study))["runs"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
