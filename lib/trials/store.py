"""The results store: one small JSON file a trial, ``FOLDER/<experiment>/<label>.<digits>.json``.

The digits are the first 8 of the configuration's hash. They alone find a record, and the whole hash confirms it:
the experiment's folder and the label are for people. ``FOLDER/data.json`` has the fingerprints of each experiment's
data: {experiment: {data set: fingerprint}}.
"""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from lib.files import locked, note_read, replacing
from lib.trials.naming import experiment_folder, label

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
RUNS = ROOT / "runs"  # of readers, beside what the repository holds
DATA = "data.json"
DIGITS = 8  # of a name; all 16 where another record of that folder and label has the same 8


class ResultWarning(UserWarning):
    """A file of the store that cannot be used; the message names the file and the reason."""


def identity(configuration: dict) -> str:
    """The 16 hexadecimal digits that name a configuration: a hash that the order of its keys does not change.

    Raises ValueError where a value cannot be written to JSON, NaN and infinity included.
    """
    return hashlib.sha256(_json(configuration, sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """Trials' records (see `check_record`) in the folders of `folder`.

    They are found in whichever folder they are; new ones go to that of `experiment` (None: one by their data set or
    kind). Files are replaced whole: a reader never meets half a record, and a writer that dies leaves the old one.
    What is not there is written to `own`, which is read too: RUNS where `folder` is RESULTS, so that only a store that
    asks for it (`own` = RESULTS) changes what the repository holds; else `folder`.

    An experiment has one version of each data set: the fingerprint of its first record is kept, and records of other
    data are neither written nor read.
    """

    def __init__(self, folder: Path | str = RESULTS, experiment: str | None = None, own: Path | None = None) -> None:
        self.folder, self.experiment = Path(folder), experiment
        self.own = own or (RUNS if self.folder == RESULTS else self.folder)
        self.folders = list(dict.fromkeys([self.folder, self.own]))

    def path(self, configuration: dict) -> Path:
        """Where the record of this configuration is or would be."""
        return self._found(configuration)[0]

    def read(self, configuration: dict) -> dict | None:
        """This configuration's record; None where there is none, or with a ResultWarning no good one."""
        return self._found(configuration)[1]

    def write(self, record: dict) -> Path:
        """Store `record` in place of an earlier one of its configuration; return the file's path.

        A file with its digits which is no good record is kept, as ``.unusable``. Raises ValueError, and writes
        nothing, where it is no record, or one of other data than the experiment's.
        """
        check_record(record)
        lines = ",\n".join(f"{_json(key)}: {_json(value)}" for key, value in record.items())
        path, _, found = self._found(record["configuration"])
        self._keep_fingerprints(self.experiment or path.parent.name, record.get("data", {}))
        with replacing(path) as file:
            file.write(("{\n" + lines + "\n}\n").encode())
            for other, kept in found.items():
                if kept is None and other.is_relative_to(self.own):  # not ours to destroy
                    os.replace(other, other.with_suffix(".json.unusable"))
        return path

    def __iter__(self) -> Iterator[dict]:
        """Every usable record, of the experiment where the store has one, by file name; any other file is named in
        a ResultWarning and skipped."""
        note_read(f"{self.experiment or ''}/")
        paths = (path for folder in self.folders for path in folder.glob(f"{self.experiment or '*'}/*.json"))
        return (record for path in sorted(paths) if (record := self._load(path)) is not None)

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Of each experiment, the fingerprints of its data by their names; raises ValueError for a damaged file."""
        kept: dict[str, dict[str, str]] = {}
        for path in filter(Path.is_file, (folder / DATA for folder in reversed(self.folders))):
            try:
                for experiment, own in json.loads(path.read_text(encoding="utf-8")).items():
                    kept[experiment] = kept.get(experiment, {}) | dict(own)
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{path} must hold the fingerprints of data: {error}") from error
        return kept

    def other_data(self, data: Mapping[str, str], experiment: str | None = None) -> str | None:
        """In one line how `data` (fingerprints by name) differ from those of the experiment (None: the store's own);
        None: they do not."""
        experiment = experiment or self.experiment or ""
        own = self.fingerprints().get(experiment, {}) if data else {}
        for name, fingerprint in data.items():
            if own.get(name, fingerprint) != fingerprint:
                return f"{name} is other data ({fingerprint}) than those of the experiment {experiment} ({own[name]})"
        return None

    def _keep_fingerprints(self, experiment: str, data: Mapping[str, str]) -> None:
        if data.items() <= self.fingerprints().get(experiment, {}).items():
            return
        with locked(self.own / ".locks" / "data"):
            if problem := self.other_data(data, experiment):
                raise ValueError(f"record must be of the experiment's own data: {problem}")
            kept = self.fingerprints()
            kept[experiment] = {**kept.get(experiment, {}), **data}
            with replacing(self.own / DATA) as file:
                file.write((json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())

    def _found(self, configuration: dict) -> tuple[Path, dict | None, dict[Path, dict | None]]:
        """Where the configuration's record is or would be, the record, and of every file with its digits what that
        holds: None if it is no good record."""
        name = identity(configuration)
        digits = f".{name[:DIGITS]}"
        note_read(digits)
        walks = (walk for folder in self.folders for walk in os.walk(folder))
        paths = [Path(folder, file) for folder, _, files in walks for file in files if digits in file]
        found = {path: self._load(path) for path in sorted(paths) if path.suffix == ".json"}
        for path, record in found.items():
            if record and identity(record["configuration"]) == name:
                return path, record, found
        folder = self.own / (self.experiment or experiment_folder(configuration))
        short, whole = (folder / f"{label(configuration)}{end}.json" for end in (digits, f".{name}"))
        return whole if found.get(short) else short, None, found

    def _load(self, path: Path) -> dict | None:
        """The record in a file; None, with a warning, where there is no good one. Raises as `fingerprints`."""
        try:
            text = path.read_text(encoding="utf-8")
            record = check_record(json.loads(text, parse_constant=_finite, parse_float=_finite))
            name, digits = identity(record["configuration"]), path.stem.rpartition(".")[2]
            problem: object = "" if digits in (name[:DIGITS], name) else f"its configuration has the name {name}"
        except (OSError, ValueError, RecursionError) as error:  # damaged JSON and text are ValueErrors too
            record, problem = {}, error
        if problem := problem or self.other_data(record.get("data", {}), self.experiment or path.parent.name):
            warnings.warn(f"skipped {path}: {problem}", ResultWarning, stacklevel=3)
        return None if problem else record


@cache
def _schema() -> Any:
    return fastjsonschema.compile(json.loads(Path(__file__).with_name("record.json").read_text(encoding="utf-8")))


def check_record(record: Any) -> dict:
    """`record` where it is one, by the schema in ``record.json``; raises ValueError, in one line, where it is none.

    This alone decides what counts as stored, is read and is written.
    """
    try:
        _schema()(record)
    except fastjsonschema.JsonSchemaException as error:
        raise ValueError(f"is no record of a trial: {str(error).removeprefix('data.')[:200]}") from error
    shape = record["configuration"].get("settings"), record["configuration"].get("seeds")
    grids = dict(record["metrics"] or {}) if shape[0] is not None else {}
    for part in [*grids.pop("wrong", {}).values(), grids]:
        for name, rows in part.items():
            if len(rows) != len(shape[0]) or any(row is not None and len(row) != shape[1] for row in rows):
                raise ValueError(f"is no record of a trial: {name} must have a value for every setting and seed")
    return record


def _json(value: object, **options: bool) -> str:
    try:
        return json.dumps(value, allow_nan=False, **options)  # type: ignore[arg-type]  # options are booleans here
    except (TypeError, ValueError) as error:
        raise ValueError(f"a stored value must be plain JSON without NaN or infinity: {error}") from error


def _finite(text: str) -> float:
    """A number that JSON's text stands for; raises ValueError for NaN, infinity, and what a float cannot hold."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"holds {text}, which is no finite number")
    return value
