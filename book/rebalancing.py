"""Chapter 04: the rules of C2 and C5, and the phantom head beside the real one (Figures 2B and 4)."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book import style
from book.claims import Check
from lib.stats import Estimate, estimate, rank_correlation

HARDLY = 1 / 3  # of the phantom ratio's change: a real ratio that changes by less hardly moves
FEATURES = {"easy": (style.EASY, "s"), "hard": (style.HARD, "o")}
REAL = {"linestyle": (0, (4, 2)), "linewidth": 1.1}  # the real head is dashed, the phantom solid
RADIUS = r"LSAM radius $\rho$ (0: SGD)"
OUTER = 0.1  # share of the steps at either end that a shaded range leaves out


def steadiness(phantom: np.ndarray, real: np.ndarray) -> np.ndarray:
    """What is above 0 where the real ratio hardly moves, upwards and downwards, (2, ..., seed), by the changes
    (..., seed) of both ratios from SGD to LSAM."""
    return np.stack([HARDLY * phantom - real, HARDLY * phantom + real])


def checks_c2(rhos: Sequence[float], rho: float, phantom: np.ndarray, real: np.ndarray) -> list[Check]:
    """C2 from the phantom and the real ratio of mean weights, (complexity, rho, seed), the first radius 0; the
    complexities are those where the spiral is the hard feature."""
    if not len(phantom):
        return []
    changes = [ratio[:, list(rhos).index(rho)] - ratio[:, 0] for ratio in (phantom, real)]
    trends = np.stack([rank_correlation(rhos, ratio) for ratio in phantom])
    margins = {
        f"phantom ratio at ρ = {rho:g} minus that of SGD above 0": changes[0],
        "rank correlation of ρ with the phantom ratio above 0": trends,
        "a third of the phantom ratio's change minus the real ratio's above 0": steadiness(*changes),
    }
    lowest = {what: _extreme(values, -1) for what, values in margins.items()}
    return [Check(what, effect.low > 0, effect) for what, effect in lowest.items()]


def checks_c5(rho: float, easy: np.ndarray, hard: np.ndarray) -> list[Check]:
    """C5 from the means over training of w~_e / w_e and w~_h / w_h at `rho`, each (complexity, seed), of the
    complexities where the spiral is the hard feature."""
    if not len(easy):
        return []
    lowered, raised = _extreme(easy, +1), _extreme(hard, -1)
    return [
        Check(f"easy feature: mean of w̃/w at ρ = {rho:g} below 1", lowered.high < 1, lowered),
        Check(f"hard feature: mean of w̃/w at ρ = {rho:g} above 1", raised.low > 1, raised),
    ]


def _extreme(values: np.ndarray, sign: int) -> Estimate:
    """Of the means over seeds of `values` (..., seed) that whose interval reaches furthest up (+1) or down (-1);
    NaN, where a net diverged, reaches furthest."""
    effects = [estimate(seeds) for seeds in values.reshape(-1, values.shape[-1])]
    return effects[np.argmax([effect.high if sign > 0 else -effect.low for effect in effects])]
