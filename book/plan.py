"""Which trials an experiment of the book consists of, how far it has come, and how long the rest will take."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import qmc

from lib import check
from lib.trials.store import Store
from lib.trials.trial import Trial

Range = tuple[float, float, str]  # lowest, highest, and the scale in between: see `space_filling`


@dataclass(frozen=True)
class Plan:
    """Trials to compute, as far as stored results let one know, and how many more will follow once these are
    stored (such as the seeds of a setting that they select)."""

    trials: tuple[Trial, ...]
    later: int = 0


@dataclass(frozen=True)
class Experiment:
    """A named set of trials in one store; `plan(store, seeds)` lists them, `seeds` of a setting each."""

    name: str
    about: str
    plan: Callable[[Store, int], Plan]
    store: Store
    seeds: int


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
    plan = experiment.plan(experiment.store, seeds or experiment.seeds)
    trials = {trial.identity: trial for trial in plan.trials}.values()
    records = [experiment.store.read(trial.configuration) for trial in trials]
    times = [(*trial.cost, total_seconds([record]) if record else np.nan) for trial, record in zip(trials, records)]
    counts = pd.Series([record["status"] if record else "missing" for record in records]).value_counts()
    missing = tuple(trial for trial, record in zip(trials, records) if record is None)
    left = seconds_left(pd.DataFrame(times, columns=["kind", "amount", "seconds"]), plan.later)
    return Status(counts.get("finished", 0), counts.get("diverged", 0), missing, plan.later, left)


def seconds_left(costs: pd.DataFrame, later: int = 0) -> float | None:
    """The time of the trials whose seconds are not known, by the mean rate of their kind, and of `later` ones that each
    take the mean of all; None where a kind has no rate."""
    expected = costs.amount * (costs.seconds / costs.amount).groupby(costs.kind).transform("mean")
    left = expected[costs.seconds.isna()].sum(skipna=False) + (later and later * expected.mean())
    return None if np.isnan(left) else float(left)


def space_filling(ranges: Mapping[str, Range], points: int, seed: int = 0) -> list[dict[str, float]]:
    """The first points of a scrambled Sobol sequence over `ranges`, a value for each name, to three digits.

    Scales are "linear", "log", "whole" (a whole number, evenly spread on a logarithmic axis) or "either" (one end or
    the other). Fewer points are the first of more. Raises ValueError for less than one point.
    """
    doublings = int(np.ceil(np.log2(check.whole("points", points, 1))))
    shares = qmc.Sobol(len(ranges), seed=seed).random_base2(doublings)[:points]
    return [{name: within(ranges[name], share) for name, share in zip(ranges, row)} for row in shares]


def within(ends: Range, share: float) -> float:
    """The value at a share, in [0, 1], of a range."""
    low, high, scale = ends
    if scale == "either":
        return high if share >= 0.5 else low
    value = low + share * (high - low) if scale == "linear" else low * (high / low) ** share
    return round(value) if scale == "whole" else float(f"{value:.3g}")


def total_seconds(records: Iterable[dict]) -> float:
    """The time that these records took to compute, one after the other."""
    return float(sum(record["seconds"].get("total", sum(record["seconds"].values())) for record in records))


def duration(seconds: float) -> str:
    """A time as one says it: 0.4 s, 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.{0 if seconds >= 1 or not seconds else 1}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
