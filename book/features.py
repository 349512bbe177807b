"""Chapter 02: what goes wrong with a probe, where the truth is known (made representations, toy nets, raw pixels), and
with the interval of a mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import sem
from scipy.stats import t as student

from book import style
from lib.data.dataset import Dataset
from lib.data.toy import ToyConstants, ToySample, sample
from lib.probes import linear_probe
from lib.stats import LEVEL, bootstrap_means, mean_interval
from lib.toy.ensemble import ToyResult, features

TEST_EXAMPLES = 2000
Attributes = dict[str, np.ndarray]


@dataclass(frozen=True)
class Representation:
    """`width` Gaussian units of unit variance that hold two binary attributes, one unit each.

    `easy` and `hard`: distance between the means of an attribute's two values, in standard deviations.
    """

    easy: float
    hard: float
    width: int = 16

    @property
    def hard_error(self) -> float:
        """The hard attribute's true probing error, Phi(-distance / 2): that of the best linear probe."""
        return NormalDist().cdf(-self.hard / 2)

    def draw(self, attributes: Attributes, random: np.random.Generator) -> np.ndarray:
        """Features (n, width) of examples that have these attributes, each 0 or 1."""
        units = random.normal(size=(len(attributes["easy"]), self.width))
        units[:, 0] += self.easy * (attributes["easy"] - 0.5)
        units[:, 1] += self.hard * (attributes["hard"] - 0.5)
        return units


def agreeing(examples: int, agreement: float, random: np.random.Generator) -> Attributes:
    """An easy and a hard attribute, each 0 in half of the examples, a multiple of 4, equal in the share `agreement` of
    them: 0.5 is a balanced set, 1 a perfectly correlated one."""
    easy = np.arange(examples) % 2
    differs = np.arange(examples) // 2 >= round(agreement * examples / 2)
    order = random.permutation(examples)
    return {"easy": easy[order], "hard": np.where(differs, 1 - easy, easy)[order]}


def probed(
    representations: Sequence[Representation], sets: Sequence[tuple[int, Sequence[float]]], seeds: Sequence[int]
) -> np.ndarray:
    """Errors (representation, set, seed, test) of a probe of the hard attribute. A set is a number of examples that
    train the probe and several agreements: of these, and of each test."""
    return np.array([[[_errors(one, *each, seed) for seed in seeds] for each in sets] for one in representations])


def _errors(representation: Representation, examples: int, agreements: Sequence[float], seed: int) -> list[float]:
    random, (train, *tests) = np.random.default_rng(seed), agreements
    sets = [agreeing(examples, train, random), *(agreeing(TEST_EXAMPLES, share, random) for share in tests)]
    drawn = [(representation.draw(attributes, random), attributes) for attributes in sets]
    probe = linear_probe(*drawn[0], *drawn[1], "hard", allow_unbalanced=True)
    return [np.mean(probe.predict(phi) != attributes["hard"]) for phi, attributes in drawn[1:]]


def of_toy_inputs(spirals: Sequence[ToyConstants], seed: int) -> list[float]:
    """Error of the best line on the toy's easy plane, and on the hard plane of each of `spirals`."""
    errors = []
    for constants, plane in ((spirals[0], slice(0, 2)), *((spiral, slice(2, 4)) for spiral in spirals)):
        points = [sample(constants, seed, split) for split in ("train", "test")]
        sets = [(part.x[:, plane], {"label": (part.y > 0).astype(int)}) for part in points]
        # Nothing to balance the label against; and it alternates, so that an odd set is one point off.
        errors.append(linear_probe(*sets[0], *sets[1], "label", allow_unbalanced=True).error)
    return errors


def of_toy_nets(result: ToyResult) -> dict[str, np.ndarray]:
    """Hard probing errors (setting, seed) of trained toy nets that were kept, whose representation is phi = (f_e, f_h).

    "correlated": of a probe trained and measured on points like the training data; "balanced": on balanced ones.
    """
    shape = len(result.settings), len(result.seeds)
    errors = {kind: np.empty(shape) for kind in ("correlated", "balanced")}
    for (i, j), kind in product(np.ndindex(shape), errors):
        points = (sample(result.settings[i].data, result.seeds[j], split) for split in ("validation", "test"))
        sets = [_represented(result.nets[i][j, -1], part, kind == "balanced") for part in points]
        errors[kind][i, j] = linear_probe(*sets[0], *sets[1], "hard", allow_unbalanced=kind == "correlated").error
    return errors


def _represented(net: np.ndarray, points: ToySample, balanced: bool) -> tuple[np.ndarray, Attributes]:
    """phi (n, 2), n a multiple of 4, and the points' attributes, `balanced` by exchanging hard parts."""
    rows = np.arange(len(points.y) // 4 * 4)
    # Labels alternate: exchanging the hard parts of neighbours in one half balances the attributes.
    partner = np.where(balanced & (rows < len(rows) // 2), rows ^ 1, rows)
    labels = (points.y > 0).astype(int)
    phi = features(net[0], points.x[rows, :2]), features(net[1], points.x[partner, 2:])
    return np.stack(phi, axis=1), {"easy": labels[rows], "hard": labels[partner]}


def of_pixels(data: Dataset) -> dict[str, dict[str, float]]:
    """Errors of an attribute's probe on raw pixels, without a net, on "correlated" and "balanced" pairs."""
    kinds = {"correlated": (data.validation, data.test), "balanced": (data.probe_train, data.probe_test)}
    errors = {name: {} for name in data.attributes}
    for name, (kind, splits) in product(errors, kinds.items()):
        train, test = ((split.images.flatten(1), split.attributes) for split in splits)
        errors[name][kind] = linear_probe(*train, *test, name, allow_unbalanced=kind == "correlated").error
    return errors


# What an interval of a mean covers.

FAIL = 0.3  # probability of a 1 where data have two values only, as of nets that learn a feature or do not
DATA = {  # how they are drawn, and their mean
    "normal": (lambda random, shape: random.normal(size=shape), 0.0),
    "skewed (exponential)": (lambda random, shape: random.exponential(size=shape), 1.0),
    "two-valued": (lambda random, shape: (random.random(shape) < FAIL).astype(float), FAIL),
}
EXPERIMENTS = 1000
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
INTERVALS = {  # (2, ...) of the mean of values (..., seed)
    "percentile bootstrap": lambda values: np.quantile(bootstrap_means(values, 1000), TAILS, axis=-1),
    "Student's": lambda values: (
        values.mean(-1) + np.multiply.outer(student.ppf(TAILS, values.shape[-1] - 1), sem(values, axis=-1))
    ),
    "this book's": lambda values: mean_interval(values)[1:],
}


def misses(sizes: Sequence[int], experiments: int = EXPERIMENTS) -> dict[str, dict[str, np.ndarray]]:
    """How often an interval of the mean of n values misses the true mean: data -> interval -> (size, 2), the share of
    experiments in which it lies wholly above it, and wholly below."""
    found = {name: {kind: np.empty((len(sizes), 2)) for kind in INTERVALS} for name in DATA}
    for (name, (draw, truth)), (i, n) in product(DATA.items(), enumerate(sizes)):
        values = draw(np.random.default_rng(0), (experiments, n))
        for kind, interval in INTERVALS.items():
            low, high = interval(values)
            found[name][kind][i] = np.mean(low > truth), np.mean(high < truth)
    return found


# Figures.


def covered(sizes: Sequence[int], missed: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Share of intervals that hold the true mean against n, a panel for each kind of data, from `misses`."""
    fig, axes = style.panels(["intervals that hold the mean"], list(missed), 1.9, sharey=True)
    for panel, of_kind in zip(axes[0], missed.values()):
        panel.axhline(LEVEL, color=style.GREY, linewidth=0.8)
        looks = ("v--", style.SGD), ("o-", style.LSAM), ("s:", style.SAM)
        for (kind, shares), (look, colour) in zip(of_kind.items(), looks):
            panel.plot(range(len(sizes)), 1 - shares.sum(axis=1), look, color=colour, markersize=4, label=kind)
        panel.set(xlabel="number of values, $n$", xticks=range(len(sizes)), xticklabels=sizes)
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
    axes[0, 0].legend(loc="lower right")
    return fig


def toy_planes(samples: Mapping[float, ToySample], line_errors: Sequence[float]) -> Figure:
    """The easy plane, and the hard one at each complexity (degrees); below, the best line's error."""
    panels = [(r"easy: $x_e$", next(iter(samples.values())), slice(0, 2))]
    panels += [(rf"hard: $x_h$, $\kappa$ = {angle:g}°", one, slice(2, 4)) for angle, one in samples.items()]
    fig, axes = plt.subplots(1, len(panels), figsize=(style.PAGE_WIDTH, 0.55 + style.PAGE_WIDTH / len(panels)))
    for panel, (title, points, columns), error in zip(axes, panels, line_errors, strict=True):
        plane = points.x[:, columns]
        limit = 1.08 * np.abs(plane).max()
        style.points(panel, plane, points.y, 13)
        panel.set(xlim=(-limit, limit), ylim=(-limit, limit))
        panel.set_title(title, loc="center", fontsize=10, weight="normal")
        panel.set_xlabel(f"best line: error {error:.2f}", fontsize=9)
    axes[0].legend(loc="lower right", handletextpad=0, borderpad=0, fontsize=8.5)
    return fig


def image_pairs(data: Dataset, columns: int = 10) -> Figure:
    """A row of correlated pairs (`train`), class by class, and one of balanced pairs (`probe_train`)."""
    fig = plt.figure(figsize=(style.PAGE_WIDTH, 3.9))
    titles = "training: both attributes are the label", "probing: every combination of attributes equally often"
    for part, title, split in zip(fig.subfigures(2, hspace=0.05), titles, (data.train, data.probe_train)):
        part.suptitle(title, x=0.01, ha="left", fontsize=10, weight="bold")
        chosen = data.groups(split).argsort()[np.linspace(0, len(split) - 1, columns).astype(int)]
        for panel, index in zip(part.subplots(1, columns), chosen):
            panel.imshow(split.images[index].permute(1, 2, 0).numpy(), interpolation="nearest")
            panel.axhline(split.images.shape[2] / 2 - 0.5, color="white", linewidth=1.2)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            upper, lower = (int(split.attributes[name][index]) for name in data.attributes)
            # "T-shirt/top" is too long for a small picture.
            names = [of[value].split("/")[0] for of, value in zip(data.values.values(), (upper, lower))]
            colour = "black" if upper == lower else style.SGD
            panel.set_xlabel("\n".join(names), fontsize=7, labelpad=2, color=colour)
    return fig


def reported_and_true(agreements: Sequence[float], errors: Mapping[str, np.ndarray], truths: Sequence[float]) -> Figure:
    """Probing error of the hard attribute against the agreement of the probe data, as reported and as it is.

    errors: name of a representation -> (agreement, seed, 2), on more data of that agreement and on balanced data, as by
    `probed`; truths: the error of each one's best linear probe.
    """
    titles = "reported: on more data of the same kind", "true: the same probe on balanced data"
    fig, axes = style.panels(["error of the hard attribute's probe"], titles, 2.6, sharey=True)
    looks = ((style.HARD, "o", "-"), (style.EASY, "s", "--"))
    for side, panel in enumerate(axes[0]):
        for (name, values), truth, (colour, marker, dashes) in zip(errors.items(), truths, looks):
            panel.axhline(truth, color=colour, linewidth=1, linestyle=":")
            style.line(panel, agreements, values[..., side], colour, marker, linestyle=dashes, label=name)
        panel.set(xlabel="share of probe data whose attributes agree", ylim=(-0.015, 0.56))
        panel.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
    axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 0.02))
    return fig


def error_against_size(sizes: Sequence[int], errors: Mapping[str, np.ndarray], truth: float) -> Figure:
    """Balanced probe's error against the number of probe examples, one line for each entry (size, seed)."""
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 3.3))
    style.lines(axes, sizes, errors)
    axes.axhline(truth, color=style.GREY, linewidth=1, linestyle=":", label="best linear probe")
    axes.set(xlabel="balanced examples to train the probe", ylabel="error of the hard attribute's probe")
    axes.set(xscale="log", ylim=(truth - 0.035, None))
    style.plain(axes.xaxis, ticks=sizes)
    axes.legend()
    return fig


def methods_told_apart(errors: Mapping[str, np.ndarray], methods: Sequence[str]) -> Figure:
    """Hard error of two methods' toy nets, by each way of measuring: `errors` maps its name to (2, seeds)."""
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 3.3))
    for place, values in enumerate(errors.values()):
        at = place + np.array([-0.17, 0.17])
        axes.plot(at, values, color="#C9C9C9", linewidth=0.7, zorder=1)
        for x, seeds, colour, marker, method in zip(at, values, (style.SGD, style.LSAM), "o^", methods):
            look = {"s": 18, "color": colour, "marker": marker, "alpha": 0.75, "linewidths": 0, "zorder": 2}
            axes.scatter(np.full(len(seeds), x), seeds, label=None if place else method, **look)
            axes.hlines(seeds.mean(), x - 0.1, x + 0.1, color=colour, linewidth=2.5, zorder=3)
    axes.set(xticks=range(len(errors)), xticklabels=errors, ylabel="hard probing error", ylim=(-0.015, None))
    axes.legend(loc="upper right")
    return fig
