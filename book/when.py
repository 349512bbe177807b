"""Chapter 15: when SAM and LSAM act, on the paired sets and in the toy: plans, the rule of what is kept, figures."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.optimize import brentq

from book.claims import Check, Outcome, compared
from book.protocols import PAIRED, selected
from lib.stats import Estimate, estimate, mean_interval
from lib.trials.plan import Plan
from lib.trials.store import Store

Window = tuple[int, int]  # epochs, from the first to before the second, in which the radius holds
SEEDS = 8
METHODS = ("sam", "lsam")
SWITCHES = (1, 2, 5)  # of 20 epochs
HALF = 0.5  # of the gain: what has to be kept
SMALL = 0.005  # a gain in probing error that is none
# A tenth of the training at the beginning, at the end, and all but the first.
FIRST, LAST, ALL_BUT_FIRST = "the first tenth", "the last tenth", "all but the first tenth"


def windows(epochs: int) -> list[Window]:
    """Every switch in both directions, then the last tenth of the training."""
    return [window for k in SWITCHES for window in ((0, k), (k, epochs))] + [(epochs - epochs // 10, epochs)]


def plan(dataset: str, store: Store, seeds: int = SEEDS) -> Plan:
    """SAM and LSAM at their selected settings, with the radius in each window only, and the whole trainings of SGD,
    SAM and LSAM beside them; they follow the sweep of the set."""
    settings, epochs = selected(PAIRED[dataset], store), PAIRED[dataset].base.epochs
    if settings is None:
        return Plan((), seeds * (1 + len(METHODS) * (1 + len(windows(epochs)))))
    nets = [*settings.values()]
    nets += [replace(settings[method], ascent=window) for window in windows(epochs) for method in METHODS]
    return Plan(tuple(replace(net, seed=seed) for seed in range(seeds) for net in nets))


def paired(*errors: np.ndarray) -> list[np.ndarray]:
    """The errors, each (seed,), on the seeds that have them all."""
    there = ~np.isnan(errors).any(axis=0)
    return [error[there] for error in errors]


def kept(sgd: np.ndarray, whole: np.ndarray, part: np.ndarray, share: float = HALF) -> np.ndarray:
    """The gain over SGD of training with a `part` of the method less a `share` of the gain of the `whole`, (seed,):
    above 0 where that share is kept."""
    return (sgd - part) - share * (sgd - whole)


def share_kept(sgd: np.ndarray, whole: np.ndarray, part: np.ndarray) -> Estimate:
    """The share of the mean gain that is kept, with those shares that the interval of `kept` does not rule out.

    The spread is NaN: a seed alone may have no gain. Ends are infinite, and the mean NaN, where the whole gain is not
    above 0 by its interval.
    """
    gain = estimate(sgd - whole)
    if not gain.low > 0:
        return Estimate(gain.n, np.nan, np.nan, -np.inf, np.inf)

    def bound(share: float, end: int) -> float:
        return float(mean_interval(kept(sgd, whole, part, share))[end])

    reach = 10 * (1 + np.abs(sgd - part).max() / gain.low)  # beyond it either way the interval leaves 0 out
    ends = (brentq(bound, -reach, reach, args=(end,)) for end in (1, 2))
    return Estimate(gain.n, float((sgd - part).mean() / gain.mean), np.nan, *ends)


def checks(where: str, sgd: np.ndarray, whole: np.ndarray, parts: Mapping[str, np.ndarray]) -> list[Check]:
    """What is kept of a gain, from hard probing errors (seed,), NaN where there is none; parts: `FIRST`, `LAST` and
    `ALL_BUT_FIRST`.

    A share is judged where the whole training has a gain; where it is not known to, the share is undecided.
    """
    gain = f"{where}: gain of the whole training above 0"
    premise = compared(gain, [estimate(np.subtract(*paired(sgd, whole)))], low=0, margin=SMALL)
    found = [premise]
    for name, part in parts.items():
        what, main, seeds = f"{where}: {name} keeps half of the gain", name == FIRST, paired(sgd, whole, part)
        if premise.outcome is Outcome.CONTRADICTED or not seeds[0].size:
            found.append(Check(what, main=main))
        elif premise.outcome is Outcome.UNDECIDED:
            found.append(Check(what, Outcome.UNDECIDED, estimate(kept(*seeds)), main))
        else:
            found.append(compared(what, [estimate(kept(*seeds))], low=0, main=main))
    return found + [_earlier(where, *paired(parts[ALL_BUT_FIRST], parts[FIRST]))]


def _earlier(where: str, rest: np.ndarray, first: np.ndarray) -> Check:
    what = f"{where}: {FIRST} keeps more than {ALL_BUT_FIRST}"
    return compared(what, [estimate(rest - first)], low=0, margin=SMALL) if first.size else Check(what)
