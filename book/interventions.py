"""Chapter 06: the rule of C6; each effect alone, what LSAM does that they do not, and what it all depends on
(Figure 6); and what curves over a positive ratio, one for each seed, have: heights, mean heights, distances, crossings.

Such a curve is straight between its points on a logarithmic axis and constant beyond the first and the last.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from book import style
from book.claims import MARGIN, Check, compared, weakest
from book.mechanism import Decomposition
from lib.stats import LEVEL, Estimate, bootstrap_means, spread
from lib.toy.ensemble import intervention, lsam, train

TOLERANCE = 0.05  # of a match with LSAM, in probing error
COMPARABLE = 2  # times the smaller gain, which exceeds the larger where gains are comparable
SIMPLE_RATIOS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # at the simple setting, from SGD's own ratio up
NAMES = {"importance": "importance weighting", "learning_rate": "learning rate", "both": "both together"}
COLOURS = {"importance": style.SAM, "learning_rate": style.HARD, "both": "#22272E"}
MARKERS = {"importance": "o", "learning_rate": "s", "both": "^"}
ERROR = (-0.015, 0.53)  # limits of an axis of probing errors, which chance puts at 0.5


class Compared(NamedTuple):
    """Hard probing errors of every intervention at `ratios`, name -> (ratio, seed); those of SGD, then of LSAM at each
    radius, `swept` (rho, seed), and their phantoms' ratios of mean weights, in the mean over seeds, `places` (rho,)."""

    ratios: Sequence[float]
    curves: Mapping[str, np.ndarray]
    swept: np.ndarray
    places: np.ndarray

    @property
    def gains(self) -> dict[str, np.ndarray]:
        """Each intervention's mean gain in hard probing error over SGD, (seed,), from SGD's own ratio to the last."""
        ends = self.places[0], self.ratios[-1]
        return {name: mean_height(self.ratios, self.swept[0] - curve, *ends) for name, curve in self.curves.items()}

    @property
    def to_match(self) -> bool:
        """Whether LSAM gains enough for a match to mean anything: SGD itself is further from its curve than a match may
        be."""
        return distance(self.swept[:1], self.swept[1:]).mean > TOLERANCE

    def apart(self, effect: str) -> Estimate:
        """Distance of an intervention's curve to LSAM's errors at its ratios."""
        return distance(at(self.ratios, self.curves[effect], self.places[1:]), self.swept[1:])


def trained(
    rhos: Sequence[float],
    ratios: Sequence[float],
    seeds: Sequence[int],
    constants: Mapping,
    every: int = 10,
    **how: Any,
) -> tuple[Compared, np.ndarray, np.ndarray]:
    """All of it, with `constants`, keywords of `ToySetting`, and `how` of the interventions besides; the heads (rho,
    seed, record, 4), w_e, w_h and the phantom's, recorded `every` so many steps; and which of the seeds were kept: one
    of which some net diverged is left out everywhere."""
    fixed = [intervention(effect, ratio, **constants, **how) for effect in NAMES for ratio in ratios]
    result = train([*(lsam(rho, **constants) for rho in rhos), *fixed], seeds, trace_every=every)
    kept = ~result.diverged.any(axis=0)
    swept, bent = np.split(result.error("hard")[:, kept, -1], [len(rhos)])
    heads = np.stack(result.traces[: len(rhos)])[:, kept].astype(float)
    mean = heads.mean(axis=-2)
    curves = dict(zip(NAMES, bent.reshape(len(NAMES), len(ratios), -1)))
    return Compared(ratios, curves, swept, (mean[..., 3] / mean[..., 2]).mean(axis=-1)), heads, kept


def at(ratios: np.ndarray, curves: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Heights (places, seeds) at the ratios `where` (places,) of `curves` (points, seeds) over rising `ratios`
    (points,)."""
    where = np.log(np.atleast_1d(where))
    return np.stack([np.interp(where, np.log(ratios), curve) for curve in np.asarray(curves).T], axis=1)


def mean_height(ratios: np.ndarray, curves: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean of each seed's curve between two ratios, (seeds,): area on the logarithmic axis over length. Raises
    ValueError where `low` is not below `high`."""
    if not 0 < low < high:
        raise ValueError(f"low must lie between 0 and high, not {low!r} with high {high!r}")
    ratios = np.asarray(ratios)
    knots = np.array([low, *ratios[(low < ratios) & (ratios < high)], high])
    return np.trapezoid(at(ratios, curves, knots), np.log(knots), axis=0) / np.log(high / low)


def distance(first: np.ndarray, second: np.ndarray) -> Estimate:
    """How far two curves (points, seeds) are apart: the mean over points of |difference of means|. Noise alone keeps it
    above 0: that it is small can be a finding, that its interval, the bootstrap's over seeds, paired, leaves 0 out
    cannot. The spread is that of each seed's signed mean difference."""
    gaps = np.subtract(first, second)
    return of_means(lambda means: np.abs(means).mean(axis=0), gaps, spread(gaps.mean(axis=0)))


def quotient(first: np.ndarray, second: np.ndarray) -> Estimate:
    """The mean of `first` over that of `second`, both (seeds,), paired; the spread is of the seeds' quotients."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return of_means(lambda means: means[0] / means[1], np.stack([first, second]), spread(first / second))


def falls_to(ratios: np.ndarray, curves: np.ndarray, goal: np.ndarray) -> Estimate:
    """From which ratio on the whole mean curve stays at or below the mean of `goal` (seeds,), infinite where its end
    does not. The interval is the bootstrap's over seeds; a single seed need not cross: no spread is given (NaN)."""

    def crossing(means: np.ndarray) -> float:
        above = np.flatnonzero(means[:-1] > means[-1])
        if not len(above):
            return ratios[0]
        if above[-1] == len(ratios) - 1:
            return math.inf
        ends = [above[-1] + 1, above[-1]]
        return np.exp(np.interp(means[-1], means[ends], np.log(np.asarray(ratios)[ends])))

    return of_means(lambda means: np.apply_along_axis(crossing, 0, means), np.vstack([curves, goal]))


def of_means(
    statistic: Callable[[np.ndarray], np.ndarray], values: np.ndarray, over_seeds: float = math.nan
) -> Estimate:
    """A statistic of the means over seeds of `values` (..., seed), and its spread where a single seed has one. It takes
    means (...) or, with one more axis, (..., draw). The interval is the percentile bootstrap's, for Student's is one of
    means themselves; its ends were drawn, so that an infinite one does no harm."""
    drawn = statistic(bootstrap_means(values))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Estimate(values.shape[-1], float(statistic(values.mean(axis=-1))), over_seeds, float(low), float(high))


def checks(found: Compared) -> list[Check]:
    """The checks of C6."""
    gains, names = found.gains, ("importance", "learning_rate")
    smaller, larger = sorted((gains[name] for name in names), key=np.mean)
    match, both = f"both together: distance to LSAM at most {TOLERANCE:g}", found.apart("both")
    return [
        compared(match, [both], high=TOLERANCE, main=True) if found.to_match else Check(match, effect=both, main=True),
        *(weakest(f"{NAMES[name]}: mean gain over SGD above 0", gains[name], +1, MARGIN) for name in names),
        weakest("twice the smaller gain minus the larger above 0", COMPARABLE * smaller - larger, +1),
    ]


def error_against_ratio(rows: Mapping[str, tuple[Compared, Sequence[float], int]]) -> Figure:
    """Figure 6: hard probing error of each intervention against c, with LSAM laid over at its measured ratios; a row
    for each title -> what was trained, the radii, and the index of the one that is marked. Faint dots are single
    seeds."""
    fig, axes = style.panels(list(rows), list(NAMES.values()), 2.6, sharey=True)
    for row, (found, rhos, marked) in zip(axes, rows.values()):
        ratios, places = found.ratios, found.places
        jitter = np.random.default_rng(0).uniform(0.95, 1.05, size=found.swept.shape[1])
        stars = ((0, style.SGD, "SGD"), (marked, style.LSAM, rf"LSAM, $\rho$ = {rhos[marked]:g}"))
        for panel, (effect, values) in zip(row, found.curves.items()):
            colour = COLOURS[effect]
            panel.plot(np.outer(ratios, jitter), values, ".", color=colour, alpha=0.3, markersize=3.5, mew=0)
            style.line(panel, ratios, values, colour, MARKERS[effect])
            style.line(panel, places, found.swept, style.LSAM, "D", label=r"LSAM, other $\rho$")
            for k, shade, label in stars:
                star = {"color": shade, "markersize": 12, "mec": "white", "label": label}
                panel.plot(places[k], found.swept[k].mean(), "*", **star)
            panel.set_xscale("log")
            style.plain(panel.xaxis, ticks=2.0 ** np.arange(*np.round(np.log2([ratios[0], 2 * ratios[-1]]))))
            panel.set_ylim(ERROR)
        row[0].legend(loc="lower right", fontsize=8.5)
    for panel in axes[-1]:
        panel.set_xlabel(r"$c$, or mean ratio $\tilde w_h/\tilde w_e$ of LSAM", fontsize=8.5)
    return fig


def rates_by_fit(parts: Decomposition) -> np.ndarray:
    """Mean w~_h / w_h over the points that the hard feature gets wrong, that it gets right, and over all, (3, seeds),
    the first two with importance weights, as the gradient has them; NaN where there is none."""
    rate, wrong = parts.hard_rate, parts.hard <= 0
    with np.errstate(invalid="ignore"):
        weights = [parts.real * wrong, parts.real * ~wrong]
        chosen = [(weight * rate).sum(axis=1) / weight.sum(axis=1) for weight in weights]
    return np.stack([*chosen, rate.mean(axis=1)])


def reasons(rhos: Sequence[float], isolated: Mapping[str, np.ndarray], by_fit: np.ndarray) -> Figure:
    """Why a constant ratio is not LSAM: hard probing error of LSAM and of each of its effects alone, name -> (rho,
    seed), and `rates_by_fit`, (rho, 3, seed)."""
    fig, (effects, points) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.2))
    looks = [(style.LSAM, "D"), *((COLOURS[effect], MARKERS[effect]) for effect in NAMES)]
    style.lines(effects, rhos, isolated, looks)
    kinds = {"wrong": (style.HARD, "o"), "right": (style.EASY, "s"), "all, unweighted": (style.GREY, "X")}
    style.lines(points, rhos, dict(zip(kinds, np.moveaxis(by_fit, 1, 0))), list(kinds.values()))
    points.axhline(1, color="black", linewidth=0.6)
    effects.set(xlabel=r"radius $\rho$", ylabel="hard probing error", title="LSAM's effects", ylim=ERROR)
    points.set(xlabel=r"radius $\rho$", ylabel=r"$\tilde w_h\, /\, w_h$", title="hard rate, by point")
    effects.legend(loc="lower left", fontsize=8.5)
    points.legend(title="hard feature is", loc="lower left", fontsize=8.5, title_fontsize=8.5)
    return fig
