"""How far an experiment has come, and how long the rest will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib.trials.plan import Experiment
from lib.trials.trial import Trial


@dataclass(frozen=True)
class Status:
    """Counts of an experiment's trials. `later` are those that will follow from stored results;
    `seconds_left` is the time of all that is not stored, one trial after the other, estimated from the stored
    trials of the same kind: None where a kind has none."""

    finished: int
    diverged: int
    missing: tuple[Trial, ...]
    later: int
    seconds_left: float | None


def status(experiment: Experiment, seeds: int | None = None) -> Status:
    """The experiment's status with `seeds` seeds a setting (None: those of the experiment)."""
    plan = experiment.plan(experiment.store, experiment.seeds if seeds is None else seeds)
    stored, missing = [], []
    for trial in {trial.identity: trial for trial in plan.trials}.values():
        record = experiment.store.read(trial.configuration)
        missing.append(trial) if record is None else stored.append((trial, record))
    diverged = sum(record["status"] == "diverged" for _, record in stored)
    return Status(
        len(stored) - diverged, diverged, tuple(missing), plan.later, seconds_left(stored, missing, plan.later)
    )


def seconds_left(stored: Sequence[tuple[Trial, dict]], missing: Sequence[Trial], later: int = 0) -> float | None:
    """The time of the missing trials, and of `later` ones that each take the mean of all others."""
    times = defaultdict(list)
    for trial, record in stored:
        kind, amount = trial.cost
        times[kind].append(total_seconds([record]) / amount)
    if not {trial.cost[0] for trial in missing} <= set(times):
        return None
    rates = {kind: sum(values) / len(values) for kind, values in times.items()}
    costs = [trial.cost for trial in (*missing, *(trial for trial, _ in stored))]
    known = [rates[kind] * amount for kind, amount in costs]
    return sum(known[: len(missing)]) + (later * sum(known) / len(known) if later else 0.0)


def in_words(seconds: float | None) -> str:
    """A duration as a reader says it; "unknown" for None."""
    return "unknown" if seconds is None else duration(seconds)


def total_seconds(records: Iterable[dict]) -> float:
    """The time that these records took to compute, one after the other."""
    return float(sum(record["seconds"].get("total", sum(record["seconds"].values())) for record in records))


def duration(seconds: float) -> str:
    """A time as one says it: 0.4 s, 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.{0 if seconds >= 1 or not seconds else 1}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
