"""The results store: one small JSON file a trial, ``FOLDER/<experiment>/<label>.<digits>.json``.

The digits are the first 8 of the configuration's hash. They alone find a record, and the whole hash confirms it:
the experiment's folder and the label are for people.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from lib.files import replacing
from lib.trials.naming import experiment_folder, label

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
DIGITS = 8  # of a name; all 16 where another record of that folder and label has the same 8


class ResultWarning(UserWarning):
    """A file of the store that cannot be used; the message names the file and the reason."""


def identity(configuration: dict) -> str:
    """The 16 hexadecimal digits that name a configuration: a hash that the order of its keys does not change.

    Raises ValueError where a value cannot be written to JSON, NaN and infinity included.
    """
    return hashlib.sha256(_json(configuration, sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """Trials' records, dictionaries of plain JSON values with a key ``configuration``, in the folders of `folder`.

    They are found in whichever folder they are; new ones go to that of `experiment` (None: one by their data set or
    kind). Files are replaced whole: a reader never meets half a record, and a writer that dies leaves the old one.
    """

    def __init__(self, folder: Path | str = RESULTS, experiment: str | None = None) -> None:
        self.folder, self.experiment = Path(folder), experiment

    def path(self, configuration: dict) -> Path:
        """Where the record of this configuration is or would be."""
        return self._path(configuration, self._found(identity(configuration)))

    def _path(self, configuration: dict, found: dict[Path, dict | None]) -> Path:
        name = identity(configuration)
        for path, record in found.items():
            if record and identity(record["configuration"]) == name:
                return path
        folder = self.folder / (self.experiment or experiment_folder(configuration))
        short, whole = (folder / f"{label(configuration)}.{digits}.json" for digits in (name[:DIGITS], name))
        return whole if found.get(short) else short

    def write(self, record: dict) -> Path:
        """Store `record` in place of an earlier one of its configuration; return the file's path.

        A file with its digits which is no good record is kept, as ``.unusable``. Raises ValueError, and writes
        nothing, where a value is not plain JSON.
        """
        lines = ",\n".join(f"{_json(key)}: {_json(value)}" for key, value in record.items())
        found = self._found(identity(record["configuration"]))
        path = self._path(record["configuration"], found)
        with replacing(path) as file:
            file.write(("{\n" + lines + "\n}\n").encode())
            for other in (other for other, kept in found.items() if kept is None):  # not ours to destroy
                os.replace(other, other.with_suffix(".json.unusable"))
        return path

    def read(self, configuration: dict) -> dict | None:
        """This configuration's record; None where there is none, or with a ResultWarning no good one."""
        name = identity(configuration)
        found = self._found(name).values()
        return next((record for record in found if record and identity(record["configuration"]) == name), None)

    def __iter__(self) -> Iterator[dict]:
        """Every usable record, of the experiment where the store has one, by file name; any other file is named in
        a ResultWarning and skipped."""
        records = map(_load, sorted(self.folder.glob(f"{self.experiment or '*'}/*.json")))
        return (record for record in records if record is not None)

    def _found(self, name: str) -> dict[Path, dict | None]:
        """The files with the digits of an identity, and what each holds: None if that is no good record."""
        mark = f".{name[:DIGITS]}"
        names = ((folder, file) for folder, _, files in os.walk(self.folder) for file in files if mark in file)
        return {Path(*found): _load(Path(*found)) for found in sorted(names) if found[1].endswith(".json")}


def _load(path: Path) -> dict | None:
    """The record in a file; None, with a warning, where there is no good one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if not isinstance(record, dict) or not isinstance(record.get("configuration"), dict):
            raise ValueError("is not the record of a trial")
        name, digits = identity(record["configuration"]), path.stem.rpartition(".")[2]
        if digits not in (name[:DIGITS], name):
            raise ValueError(f"its configuration has the name {name}")
    except (OSError, ValueError) as error:  # damaged JSON and text are ValueErrors too
        warnings.warn(f"skipped {path}: {error}", ResultWarning, stacklevel=3)
        return None
    return record


def _json(value: object, **options: bool) -> str:
    try:
        return json.dumps(value, allow_nan=False, **options)  # type: ignore[arg-type]  # options are booleans here
    except (TypeError, ValueError) as error:
        raise ValueError(f"a stored value must be plain JSON without NaN or infinity: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"holds {name}, which is no number")
