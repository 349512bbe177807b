"""What the stored results took to compute: nets, time and hardware."""

from pathlib import Path

import pandas as pd

from book.plan import total_seconds
from lib.trials.store import RESULTS, Store


def efforts(results: Path = RESULTS) -> pd.DataFrame:
    """One line for each experiment and kind of its stored trials: trials, nets (trained or measured), how many of
    them diverged, seconds, and the hardware, each kind once."""
    lines = []
    for folder in sorted(path for path in Path(results).glob("[!.]*") if path.is_dir()):
        for record in Store(results, folder.name):
            name = ", ".join(dict.fromkeys((folder.name, record["configuration"]["experiment"])))
            lines.append((name, 1, nets(record), diverged(record), total_seconds([record]), hardware(record)))
    columns = {"trials": "sum", "nets": "sum", "diverged": "sum", "seconds": "sum", "on": joined}
    return pd.DataFrame(lines, columns=["experiment", *columns]).groupby("experiment", as_index=False).agg(columns)


def joined(names: pd.Series) -> str:
    """Each of the names once."""
    return "; ".join(sorted(set(names)))


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
