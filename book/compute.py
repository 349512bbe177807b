"""What the stored results took to compute: nets, time and hardware."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lib.trials.status import total_seconds
from lib.trials.store import RESULTS, Store


@dataclass(frozen=True)
class Effort:
    """What one kind of stored trials took together."""

    experiment: str  # folder of the store, experiment and data set, as far as they differ
    trials: int
    nets: int  # trained or measured; a toy trial has many
    diverged: int  # of the nets
    seconds: float
    hardware: tuple[str, ...]


def nets(record: dict) -> int:
    """How many nets a trial has: one for each setting and seed of a toy trial, else one."""
    configuration = record["configuration"]
    return len(configuration.get("settings", [None])) * configuration.get("seeds", 1)


def diverged(record: dict) -> int:
    """How many of a trial's nets diverged: all, or those of a toy trial that have no error."""
    if record["status"] == "diverged":
        return nets(record)
    wrong = record["metrics"].get("wrong", {}).get("train", {}).get("model", [])
    return sum(points is None for seeds in wrong for points in seeds)


def hardware(record: dict) -> str:
    """The model of a record's device, with the number of threads where it is a CPU."""
    found = record["hardware"]
    threads = f", {found['threads']} thread{'s' * (found['threads'] > 1)}" if found["device"] == "cpu" else ""
    return found["model"] + threads


def efforts(results: Path = RESULTS) -> list[Effort]:
    """What was spent on each kind of trial in the folders of `results`, by name."""
    kinds = defaultdict(list)
    for folder in sorted(path for path in Path(results).glob("*") if path.is_dir()):
        for record in Store(folder):
            configuration = record["configuration"]
            dataset = configuration.get("dataset") or configuration.get("of", {}).get("dataset")
            names = dict.fromkeys(filter(None, (folder.name, configuration.get("experiment"), dataset)))
            kinds[", ".join(names)].append(record)
    return [
        Effort(
            kind,
            len(records),
            sum(map(nets, records)),
            sum(map(diverged, records)),
            total_seconds(records),
            tuple(sorted(set(map(hardware, records)))),
        )
        for kind, records in sorted(kinds.items())
    ]
