"""The results store: one small JSON file a trial, named by the hash of its configuration."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from lib.files import replacing

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


class ResultWarning(UserWarning):
    """A file of the store that cannot be used; the message names the file and the reason."""


def identity(configuration: dict) -> str:
    """The 16 hexadecimal digits that name a configuration: a hash that the order of its keys does not change.

    Raises ValueError where a value cannot be written to JSON, NaN and infinity included.
    """
    return hashlib.sha256(_json(configuration, sort_keys=True).encode()).hexdigest()[:16]


def _json(value: object, **options) -> str:
    try:
        return json.dumps(value, allow_nan=False, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a stored value must be plain JSON without NaN or infinity: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"holds {name}, which is no number")


class Store:
    """Trials' records in one folder: dictionaries of plain JSON values with a key ``configuration``.

    Files are replaced whole: a reader never meets half a record, and a writer that dies leaves the old one.
    """

    def __init__(self, folder: Path = RESULTS / "images") -> None:
        self.folder = Path(folder)

    def path(self, configuration: dict) -> Path:
        """Where the record of this configuration is or would be."""
        return self.folder / f"{identity(configuration)}.json"

    def write(self, record: dict) -> Path:
        """Store `record` under its configuration's name, in place of an earlier one; return the file's path.

        A file of that name which is no good record is kept beside it, as ``.unusable``. Raises ValueError,
        and writes nothing, where a value is not plain JSON.
        """
        path = self.path(record["configuration"])
        lines = ",\n".join(f"{_json(key)}: {_json(value)}" for key, value in record.items())
        with replacing(path) as file:
            file.write(("{\n" + lines + "\n}\n").encode())
            if path.exists() and _load(path) is None:  # a foreign or damaged file: not ours to destroy
                os.replace(path, path.with_suffix(".json.unusable"))
        return path

    def read(self, configuration: dict) -> dict | None:
        """This configuration's record; None where there is none, or with a ResultWarning no good one."""
        path = self.path(configuration)
        return _load(path) if path.exists() else None

    def __iter__(self) -> Iterator[dict]:
        """Every usable record, by file name; any other file is named in a ResultWarning and skipped."""
        for path in sorted(self.folder.glob("*.json")):
            record = _load(path)
            if record is not None:
                yield record


def _load(path: Path) -> dict | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if not isinstance(record, dict) or not isinstance(record.get("configuration"), dict):
            raise ValueError("is not the record of a trial")
        if identity(record["configuration"]) != path.stem:
            raise ValueError(f"its configuration has the name {identity(record['configuration'])}")
    except (OSError, ValueError) as error:  # damaged JSON and text are ValueErrors too
        warnings.warn(f"skipped {path}: {error}", ResultWarning, stacklevel=3)
        return None
    return record
