"""Chapter 06: the rule of C6; each effect alone, what LSAM does that they do not, and what it all depends on
(Figure 6)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from book import style
from book.claims import MARGIN, Check, compared, weakest
from book.curves import at, distance, mean_height
from book.mechanism import Decomposition
from lib.stats import Estimate
from lib.toy.ensemble import intervention, lsam, train

TOLERANCE = 0.05  # of a match with LSAM, in probing error
COMPARABLE = 2  # times the smaller gain, which exceeds the larger where gains are comparable
SIMPLE_RATIOS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # at the simple setting, from SGD's own ratio up
NAMES = {"importance": "importance weighting", "learning_rate": "learning rate", "both": "both together"}
COLOURS = {"importance": style.SAM, "learning_rate": style.HARD, "both": "#22272E"}
MARKERS = {"importance": "o", "learning_rate": "s", "both": "^"}
ERROR = (-0.015, 0.53)  # limits of an axis of probing errors, which chance puts at 0.5


class Compared(NamedTuple):
    """Hard probing errors of SGD and LSAM at `rhos`, (rho, seed), with their heads (rho, seed, record, 4), w_e, w_h and
    the phantom's, and of every intervention at `ratios`, name -> (ratio, seed); and which seeds were kept."""

    rhos: Sequence[float]
    ratios: Sequence[float]
    swept: np.ndarray
    heads: np.ndarray
    curves: dict[str, np.ndarray]
    kept: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """The phantom's ratio of mean weights at every radius, in the mean over seeds, (rho,)."""
        mean = self.heads.mean(axis=-2)
        return (mean[..., 3] / mean[..., 2]).mean(axis=-1)

    @property
    def gains(self) -> dict[str, np.ndarray]:
        """See `gains`."""
        return gains(self.ratios, self.curves, self.swept[0], self.places[0])

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
) -> Compared:
    """All of it, with `constants`, keywords of `ToySetting`, and `how` of the interventions besides; heads are recorded
    `every` so many steps. A seed of which some net diverged is left out everywhere."""
    fixed = [intervention(effect, ratio, **constants, **how) for effect in NAMES for ratio in ratios]
    result = train([*(lsam(rho, **constants) for rho in rhos), *fixed], seeds, trace_every=every)
    kept = ~result.diverged.any(axis=0)
    swept, bent = np.split(result.error("hard")[:, kept, -1], [len(rhos)])
    heads = np.stack(result.traces[: len(rhos)])[:, kept].astype(float)
    curves = dict(zip(NAMES, bent.reshape(len(NAMES), len(ratios), -1)))
    return Compared(rhos, ratios, swept, heads, curves, kept)


def gains(
    ratios: Sequence[float], curves: Mapping[str, np.ndarray], sgd: np.ndarray, low: float
) -> dict[str, np.ndarray]:
    """Each intervention's mean gain in hard probing error over SGD, (seed,), from the ratio `low`, SGD's own, to
    the largest; curves (ratio, seed), sgd (seed,)."""
    return {effect: mean_height(ratios, sgd - curve, low, ratios[-1]) for effect, curve in curves.items()}


def to_match(swept: np.ndarray) -> bool:
    """Whether LSAM gains enough for a match to mean anything: SGD itself is further from its curve than a match may be.
    `swept`: hard probing errors of SGD, then of LSAM at each radius, (rho, seed)."""
    return distance(np.broadcast_to(swept[0], swept[1:].shape), swept[1:]).mean > TOLERANCE


def checks(
    ratios: Sequence[float], curves: Mapping[str, np.ndarray], swept: np.ndarray, places: Sequence[float]
) -> list[Check]:
    """C6 from the hard probing errors of the interventions, name -> (ratio, seed), and of SGD and LSAM, `swept` (rho,
    seed), at their mean ratios `places` (rho,)."""
    gain, names = gains(ratios, curves, swept[0], places[0]), ("importance", "learning_rate")
    smaller, larger = sorted((gain[name] for name in names), key=np.mean)
    match = f"both together: distance to LSAM at most {TOLERANCE:g}"
    both = distance(at(ratios, curves["both"], places[1:]), swept[1:])
    return [
        compared(match, [both], high=TOLERANCE, main=True) if to_match(swept) else Check(match, effect=both, main=True),
        *(weakest(f"{NAMES[name]}: mean gain over SGD above 0", gain[name], +1, MARGIN) for name in names),
        weakest("twice the smaller gain minus the larger above 0", COMPARABLE * smaller - larger, +1),
    ]


def error_against_ratio(rows: Mapping[str, tuple[Compared, int]]) -> Figure:
    """Figure 6: hard probing error of each intervention against c, with LSAM laid over at its measured ratios; a row
    for each title -> what was trained, and the index of the radius that is marked. Faint dots are single seeds."""
    fig, axes = style.panels(list(rows), list(NAMES.values()), 2.6, sharey=True)
    for row, (found, marked) in zip(axes, rows.values()):
        ratios, places = found.ratios, found.places
        jitter = np.random.default_rng(0).uniform(0.95, 1.05, size=found.swept.shape[1])
        stars = ((0, style.SGD, "SGD"), (marked, style.LSAM, rf"LSAM, $\rho$ = {found.rhos[marked]:g}"))
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
