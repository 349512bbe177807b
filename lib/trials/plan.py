"""Which trials an experiment consists of, as far as stored results let one know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib.trials.store import Store
from lib.trials.trial import Trial


@dataclass(frozen=True)
class Plan:
    """Trials to compute, and how many more will follow once these are stored (such as the seeds of a
    setting that they select)."""

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
