"""Chapter 06: the rule of C6; each effect alone, what LSAM does that they do not, and what it all depends on
(Figure 6)."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from book import style
from book.claims import Check
from lib.curves import at, distance, mean_height
from lib.stats import Estimate, estimate
from lib.toy.decomposition import Decomposition

TOLERANCE = 0.05  # of a match with LSAM, in probing error
COMPARABLE = 2  # times the smaller gain, which exceeds the larger where gains are comparable
NAMES = {"importance": "importance weighting", "learning_rate": "learning rate", "both": "both together"}
COLOURS = {"importance": style.SAM, "learning_rate": style.HARD, "both": "#22272E"}
MARKERS = {"importance": "o", "learning_rate": "s", "both": "^"}
ERROR = (-0.015, 0.53)  # limits of an axis of probing errors, which chance puts at 0.5


def gains(
    ratios: Sequence[float], curves: Mapping[str, np.ndarray], sgd: np.ndarray, low: float
) -> dict[str, np.ndarray]:
    """Each intervention's mean gain in hard probing error over SGD, (seed,), from the ratio `low`, SGD's own, to
    the largest; curves (ratio, seed), sgd (seed,)."""
    return {effect: mean_height(ratios, sgd - curve, low, ratios[-1]) for effect, curve in curves.items()}


def apart(ratios: Sequence[float], curve: np.ndarray, places: Sequence[float], lsam: np.ndarray) -> Estimate:
    """Distance of an intervention's curve (ratio, seed) to LSAM's errors (rho, seed) at its ratios `places` (rho,)."""
    return distance(at(ratios, curve, places), lsam)


def comparability(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`COMPARABLE` times the smaller gain minus the larger, (seed,): above 0 where the two are comparable."""
    smaller, larger = sorted((first, second), key=np.mean)
    return COMPARABLE * smaller - larger


def checks(gain: Mapping[str, np.ndarray], both_apart: Estimate) -> list[Check]:
    """C6 from the `gains` of both effects alone, each (seed,), and how far both together are `apart` from LSAM."""
    alone = {effect: estimate(gain[effect]) for effect in ("importance", "learning_rate")}
    comparable = estimate(comparability(gain["importance"], gain["learning_rate"]))
    matches = f"both together: distance to LSAM at most {TOLERANCE:g}"
    return [
        *(Check(f"{NAMES[name]}: mean gain over SGD above 0", one.low > 0, one) for name, one in alone.items()),
        Check("twice the smaller gain minus the larger above 0", comparable.low > 0, comparable),
        Check(matches, both_apart.high <= TOLERANCE, both_apart),
    ]
