"""Chapter 7, Table 1 on images: the rule of C7 and the effects of C3 and C4, whose rules are those of chapter 5,
tables and figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product, zip_longest
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from book import protocols, style
from book.claims import MARGIN, Check, Outcome, weakest
from book.protocols import METHODS, NOT_RUN, Result, interval, spread
from lib import device as devices
from lib import stats, training
from lib.importance import WeightMap
from lib.measure import FRACTIONS, fit_probes
from lib.training import Images
from lib.trials.images import ImageTrial
from lib.trials.trial import Place

COLOURS = {"sgd": style.SGD, "sam": style.SAM, "lsam": style.LSAM}
MARKERS = {"sgd": "o", "sam": "s", "lsam": "D"}
ATTRIBUTES = {"cifar": "CIFAR", "fmnist": "FMNIST", "mnist": "MNIST"}
CLASSES = {
    "cifar": ("airplane", "automobile"),
    "fmnist": ("T-shirt", "trouser", "pullover", "dress", "coat"),
    "mnist": ("0", "1", "2", "3", "4"),
}
LINES = {"real": (0, (3, 1.5)), "phantom": "-"}


# Rules, over seeds that the methods share.

PROBED = 300  # test images of a probe; on fewer no claim is decided


def checks_c7(results: Mapping[str, Result | None]) -> list[Check]:
    """C7 on the paper's four sets and CelebA's other pairs: either feature's probing error is higher under SGD than
    under SAM; the hard one's on the paper's sets are the main checks.

    The paired sets are judged on the whole protocol only, and not run short of it; natural ones are marked as reduced.
    A check is undecided where the probe has fewer than PROBED test images, and counts for nothing where SGD's error is
    MARGIN at most: there is nothing left to lower.
    """
    checks = []
    for name in (*protocols.TABLE_1, *(pair.name for pair in protocols.OTHER_PAIRS if results.get(pair.name))):
        result = results.get(name)
        if result is None or (result.lacking and name in protocols.PAIRED):
            checks.append(Check(f"{protocols.TITLES[name]}: SAM's probing errors below SGD's", main=True))
            continue
        images = result.table.query("measure in @result.features").examples.min()
        for kind, attribute in zip(("hard", "easy"), reversed(result.features)):
            what = f"{result.title}: {kind} probing error of SGD less SAM's above 0"
            low = result.errors["sgd", attribute].mean() <= MARGIN
            margin, main = 0 if low else MARGIN, kind == "hard" and name in protocols.TABLE_1
            found = weakest(what, result.gains(attribute), +1, margin, main, bool(result.lacking))
            if images < PROBED:
                found = replace(
                    found, what=f"{what}, probed on {images:.0f} images", outcome=Outcome.UNDECIDED, needs=None
                )
            checks.append(replace(found, trivial=bool(low)))
    return checks


def gini(result: Result, epoch: int | None = None) -> np.ndarray:
    """Gini coefficients (real or phantom, net, seed) of SGD's and SAM's nets after `epoch` (None: the last one)."""
    nets = result.measured(epoch).values()
    return np.array([[[metrics[point]["gini"] for metrics in net] for net in nets] for point in LINES])


def changes(result: Result, epoch: int | None = None, reading: str = "label") -> dict[str, np.ndarray]:
    """What the phantom changes for each feature after `epoch` (None: the last one), (net, seed), with contributions
    signed by "label" or by "attribute", see `lib.measure`: of ``share easy`` and ``share hard``, the share of all
    importance that the worst-fitted quarter holds, the difference; ``slope easy`` and ``slope hard``, of the log ratio
    on the contributions."""
    found, measured = {}, result.measured(epoch).values()
    for kind, attribute in zip(("easy", "hard"), result.features):
        nets = [[one["contributions"][reading]["attributes"][attribute] for one in net] for net in measured]
        shares = [[one["worst_share"]["phantom"] - one["worst_share"]["real"] for one in net] for net in nets]
        found[f"share {kind}"] = np.array(shares)
        found[f"slope {kind}"] = np.array([[one["slope"] for one in net] for net in nets])
    return found


# Rows of tables, and numbers for the prose.


def rows(of_one: Callable[..., dict], results: Iterable[Result], *more: Any) -> dict[str, Any]:
    """The rows of all results, each as by `of_one`, or one that says that nothing was run."""
    return {name: row for result in results for name, row in of_one(result, *more).items()} or {"": NOT_RUN}


def rows_of_table(result: Result) -> dict[str, dict[str, str]]:
    """One set of Table 1 in per cent, a row a measure: every method's mean ± standard deviation over seeds, and SGD's
    error less SAM's."""
    easy, hard = result.features
    measures = {"test": "test", "worst group": "worst group"}
    for what, kind in (("probe", ""), ("own answer", "answer ")):
        for attribute, which in ((hard, "hard"), (easy, "easy")):
            measures[f"{what}, {ATTRIBUTES.get(attribute, attribute)} ({which})"] = kind + attribute
    title, errors, rows = result.title + (", reduced" if result.lacking else ""), 100 * result.errors, {}
    for what, measure in measures.items():
        if ("sgd", measure) in errors:
            there = [method for method in METHODS if (method, measure) in errors]
            rows[f"{title}: {what}"] = {METHODS[method]: spread(errors[method, measure]) for method in there}
            rows[f"{title}: {what}"]["SGD less SAM"] = interval(100 * result.gains(measure))
    return rows


def swept(result: Result) -> pd.DataFrame:
    """The sweep's nets, a row each: method, lr, rho, seed, its hard probing error in per cent, `gain` (that of SGD at
    the same learning rate and seed less its own), and what validation and test data say of it."""
    nets = []
    for record in (record for record in result.sweep if record["status"] == "finished"):
        found = {name: record["metrics"][name] for name in ("validation_error", "validation_loss")}
        found |= {name: record["configuration"][name] for name in ("method", "lr", "rho", "seed")}
        found["hard"] = 100 * record["metrics"]["probing_error"][result.features[1]]["error"]
        nets.append(found | {"test": record["metrics"]["test_error"]["error"]})
    frame = pd.DataFrame(nets)
    sgd = frame[frame.method == "sgd"].set_index(["lr", "seed"]).hard
    return frame.assign(gain=sgd.reindex(pd.MultiIndex.from_frame(frame[["lr", "seed"]])).to_numpy() - frame.hard)


def gains_of_choice(nets: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """The hard probing error of SGD less SAM's, (seed,), where each seed chooses the setting of the lowest value in the
    columns `by` (in the second where the first is equal) for either method."""
    chosen = nets.sort_values(list(by)).groupby(["seed", "method"]).hard.first().unstack()
    return (chosen.sgd - chosen.sam).dropna().to_numpy()


CHOICES = {
    "SGD less SAM, chosen by validation": ("validation_error", "validation_loss"),
    "SGD less SAM, chosen by the hard probe": ("hard",),
}


def rows_of_sweep(results: Iterable[Result]) -> dict[str, dict[str, str]]:
    """The sweeps, a column for each seed: how much of the difference is tuning, what hangs on the choice of a setting,
    and does the test error tell?"""
    columns: dict[str, dict[str, str]] = {}
    for result in results:
        nets = swept(result)
        for seed, of in nets.groupby("seed"):
            sgd, sam = (of[of.method == method] for method in ("sgd", "sam"))
            ties = [f"{(one.validation_error == one.validation_error.min()).sum()} of {len(one)}" for one in (sgd, sam)]
            told = stats.rank_correlation(of.test.to_numpy(), of[["hard"]].to_numpy())[0]
            columns[f"{result.title}, seed {seed}"] = {
                "SGD, from to": f"{sgd.hard.min():.1f} to {sgd.hard.max():.1f}",
                "SAM, from to": f"{sam.hard.min():.1f} to {sam.hard.max():.1f}",
                "SAM's settings below SGD at the same rate": f"{(sam.gain > 0).sum()} of {len(sam)}",
                **{words: f"{gains_of_choice(of, by)[0]:.1f}" for words, by in CHOICES.items()},
                "SGD's settings at the lowest validation error": ties[0],
                "SAM's settings at the lowest validation error": ties[1],
                "rank correlation with the test error": f"{told:.2f}",
            }
        if (seeds := nets.seed.nunique()) > 1:
            sam = nets[nets.method == "sam"]
            found, least = surface(sam, "gain"), sam.groupby(["lr", "rho"]).gain.min()
            columns[f"{result.title}, over {seeds} seeds"] = {
                "SAM's settings below SGD at the same rate": f"{sum(one.mean > 0 for one in found)} of {len(found)}",
                "below SGD at the same rate on every seed": f"{(least > 0).sum()} of {len(found)}",
                "below SGD at the same rate by the interval": f"{sum(one.low > 0 for one in found)} of {len(found)}",
                **{words: interval(gains_of_choice(nets, by), 1) for words, by in CHOICES.items()},
            }
    names = dict.fromkeys(name for column in sorted(columns.values(), key=len) for name in column)
    return {name: {title: one.get(name, "") for title, one in columns.items()} for name in names} or {"": NOT_RUN}


def surface(nets: pd.DataFrame, column: str) -> pd.Series:
    """The estimate over seeds of a `column` of `swept` at every setting, by (lr, rho)."""
    return nets.groupby(["lr", "rho"])[column].agg(lambda seeds: stats.estimate(seeds.to_numpy()))


def rows_of_surface(result: Result) -> dict[str, dict[str, str]]:
    """The hard probing error (%) at every setting of a sweep of several seeds, mean over seeds with its interval."""
    found: dict[str, dict[str, str]] = {}
    nets = swept(result)
    for (lr, rho), one in surface(nets, "hard").items() if nets.seed.nunique() > 1 else ():
        words = f"{one.mean:.1f} [{one.low:.1f}, {one.high:.1f}]"
        found.setdefault(f"{result.title}, rho {rho:g}" if rho else f"{result.title}, SGD", {})[f"rate {lr:g}"] = words
    return found


def wrong(errors: pd.DataFrame, measure: str) -> str:
    """How many examples a trained net gets wrong, of `table`'s: from, to, of how many."""
    chosen = errors[(errors.measure == measure) & (errors.method != "untrained")]
    count = (chosen.error * chosen.examples).astype(float).round().astype(int)
    return f"{count.min()} to {count.max()} of {int(chosen.examples.max())}"


def rows_of_evenness(result: Result) -> dict[str, dict[str, str]]:
    """What C3 is about at every moment, over seeds: Gini coefficients of either net's real and phantom weights, mean
    weights, and by what the phantom multiplies the weight of the median image, where that was measured."""
    rows = {}
    for epoch in result.protocol.moments:
        for method, net in result.measured(epoch).items():
            points = {name: [one[name] for one in net] for name in ("real", "phantom")}
            real, phantom = (np.array([one["gini"] for one in found]) for found in points.values())
            rows[f"{result.title}, {METHODS[method]}, epoch {epoch}"] = {
                "Gini, real": spread(real, 3),
                "phantom": spread(phantom, 3),
                "real less phantom": interval(real - phantom, 3),
                **{f"mean, {name}": spread([one["mean"] for one in found], 2, "g") for name, found in points.items()},
                **({"median, times": spread([one["median_ratio"] for one in net])} if "median_ratio" in net[0] else {}),
            }
    return rows


def rows_of_which(result: Result, reading: str) -> dict[str, dict[str, str]]:
    """What C4 is about at every moment, see `changes`, mean ± standard deviation over seeds."""
    rows = {}
    for epoch in result.protocol.moments:
        changed = changes(result, epoch, reading).items()
        for net, name in enumerate(("SGD", "SAM")):
            rows[f"{result.title}, {name}, epoch {epoch}"] = {what: spread(values[net], 3) for what, values in changed}
    return rows


def numbers(result: Result | None) -> dict[str, str]:
    """What the prose quotes of one set: gains on either feature in points, LSAM's and those of SGD's training on the
    hard one; how often the easy feature's probe errs, the probes' images and what one is in points; of how many images
    weights were measured, and the fall of the Gini coefficient from SGD's real to SAM's phantom ones; rho; the lacks.
    """
    names = "hard", "easy", "lsam", "trained", "wrong", "images", "image", "across", "weights", "rho", "lacking"
    found = dict.fromkeys(names, NOT_RUN)
    if result is None:
        return found
    easy, hard = result.features
    images = result.table.query("measure == @hard").examples.max()
    found |= {name: interval(100 * result.gains(of)) for name, of in (("hard", hard), ("easy", easy))}
    found["trained"] = interval(-100 * result.gains(hard, "untrained"))
    if "lsam" in result.settings:
        found["lsam"] = interval(100 * result.gains(hard, "lsam"))
    if result.weights:
        (real, _), (_, phantom) = gini(result)
        points = result.measured()["sgd"][0]["real"]["points"]
        found |= {"across": interval(real - phantom, 3), "weights": f"{points:,}"}
    found |= {"wrong": wrong(result.table, easy), "images": f"{images:.0f}", "image": f"{100 / images:.2f}"}
    lacking = ", ".join(result.lacking) or "nothing is lacking"
    return found | {"rho": f"{result.settings['sam'].rho:g}", "lacking": lacking}


# Figures.


def gains(results: Sequence[Result]) -> Figure:
    """Probing error of SGD less SAM's, in points, of both features of every set: dots are seeds, marks with bars means
    with 95 % intervals; shaded is what is too small to matter."""
    names = [f"{result.title}: {ATTRIBUTES.get(one, one)}" for result in results for one in result.features[::-1]]
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 0.9 + 0.3 * len(names)))
    style.rows(ax, names)
    ax.axvspan(-100 * MARGIN, 100 * MARGIN, color=style.GREY, alpha=0.25, lw=0)
    ax.axvline(0, color="black", lw=0.6)
    for kind, (colour, marker) in enumerate(((style.HARD, "s"), (style.EASY, "D"))):
        effects, rows = [], range(kind, len(names), 2)
        for result, row in zip(results, rows):
            seeds = 100 * result.gains(result.features[1 - kind])
            ax.plot(seeds, np.full(len(seeds), row + 0.22), "o", color=colour, ms=3, mew=0, alpha=0.45)
            effects.append(stats.estimate(seeds))
        style.whiskers(ax, effects, rows, colour, marker, label=f"{('hard', 'easy')[kind]} feature", capsize=2.5)
    ax.set_xlabel("probing error of SGD less SAM's (points)")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def against_rho(results: Sequence[Result]) -> Figure:
    """Probing error (%) of the hard feature at every rho (0 is SGD), a line for each learning rate: the mean over the
    seeds of the sweep with its 95 % interval, or one net. A ring marks the setting selected for SGD and for SAM."""
    fig, axes = plt.subplots(1, len(results), figsize=(style.PAGE_WIDTH, 3.2), squeeze=False)
    for result, ax in zip(results, axes[0]):
        found, radii = surface(swept(result), "hard"), [0.0, *result.protocol.radii]
        rates = result.protocol.rates
        for place, (lr, colour, marker) in enumerate(zip(rates, style.sequence(len(rates)), style.MARKERS)):
            line = found[lr].reindex(radii).dropna()
            at = np.array([radii.index(rho) for rho in line.index]) + 0.12 * (place - 1)
            means, ends = np.array([one.mean for one in line]), np.array([(one.low, one.high) for one in line])
            ax.plot(at, means, color=colour, marker=marker, ms=4, lw=1.3, label=f"learning rate {lr:g}")
            if line.iloc[0].n > 1:
                ax.errorbar(at, means, np.abs(ends.T - means), fmt="none", color=colour, lw=0.9, alpha=0.7)
            for method in ("sgd", "sam"):
                chosen = result.settings[method]
                if chosen.lr == lr and chosen.rho in line.index:  # else a setting of the reader's
                    ring = {"ms": 11, "mfc": "none", "mew": 1.6, "mec": COLOURS[method]}
                    ax.plot(at[line.index == chosen.rho], means[line.index == chosen.rho], "o", **ring)
        ax.set_xticks(range(len(radii)), [f"{rho:g}" for rho in radii])
        name, seeds = result.features[1], max(one.n for one in found)
        words = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
        ax.set_xlabel(r"$\rho$")
        ax.set_title(f"{result.title}: {ATTRIBUTES.get(name, name)} (hard), {words}", fontsize="small")
    axes[0, 0].set_ylabel("probing error (%)")
    handles = axes[0, 0].get_legend_handles_labels()[0]
    handles.append(Line2D([], [], ls="", marker="o", ms=10, mfc="none", mec=style.GREY, label="selected on seed 0"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return fig


def lorenz_curves(results: Sequence[Result], first: int = 0) -> Figure:
    """Figure 3: Lorenz curves of the importance weights of training images at the end of training, at the real and at
    the phantom parameters, mean and range over seeds, from the `first` of their hundredths on; where that is not 0, on
    a logarithmic axis: few pairs hold nearly everything."""
    rows, columns = -(-len(results) // 2), min(len(results), 2)
    fig, grid = plt.subplots(rows, columns, figsize=(style.PAGE_WIDTH, 0.4 + 2.8 * rows), sharey=True, squeeze=False)
    for result, ax in zip_longest(results, grid.flat):
        if result is None:
            ax.set_axis_off()
            continue
        scale = "log" if first else "linear"
        ax.set(xlabel="share of the images, heaviest first", title=result.title, xscale=scale, xlim=(first / 100, 1))
        _lorenz(ax, result.measured(), first)
    plt.setp(grid[:, 0], ylabel="their share of the importance")
    return fig


def _lorenz(ax: Axes, nets: Mapping[str, list[dict]], first: int) -> None:
    """Lorenz curves of each method's nets, from the `first` stored point on, and the line of equal weights."""
    shares = FRACTIONS[first:]
    ax.plot(shares, shares, color=style.GREY, lw=0.8, ls=":")
    for method, net in nets.items():
        for point, line in LINES.items():
            curves = np.array([metrics[point]["lorenz"] for metrics in net])[:, first:]
            label = f"{METHODS[method]} net, {point}: Gini {np.mean([one[point]['gini'] for one in net]):.3f}"
            ax.plot(shares, curves.mean(0), color=COLOURS[method], ls=line, lw=1.8, label=label)
            style.band(ax, shares, curves.min(0), curves.max(0), COLOURS[method], alpha=0.15)
    ax.set_ylim(0, 1.01)
    ax.legend(loc="lower right", fontsize="x-small")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def along_contributions(results: Sequence[Result]) -> Figure:
    """Figure 5 feature by feature, at the end of training: the ratio of phantom to real weight, over its median, along
    the contribution of either feature, signed by the label, in bins of equally many images from the worst fitted to the
    best; geometric mean and range over seeds."""
    rows = -(-len(results) // 2)
    shape, size = (rows, min(2 * len(results), 4)), (style.PAGE_WIDTH, 0.7 + 2.3 * rows)
    fig, grid = plt.subplots(*shape, figsize=size, sharex=True, sharey="row", squeeze=False)
    columns = [(result, *kind) for result in results for kind in zip(("easy", "hard"), result.features)]
    for column, ax in zip_longest(columns, grid.flat):
        if column is None:
            ax.set_axis_off()
            continue
        result, kind, attribute = column
        for method, net in result.measured().items():
            bins = [one["contributions"]["label"]["attributes"][attribute]["bins"]["ratio"] for one in net]
            values, places = np.log(np.array(bins)), (np.arange(len(bins[0])) + 0.5) / len(bins[0])
            style.band(ax, places, *np.exp([values.min(0), values.max(0)]), COLOURS[method], alpha=0.14)
            look = {"color": COLOURS[method], "marker": MARKERS[method], "ms": 3, "lw": 1.5}
            ax.plot(places, np.exp(values.mean(0)), label=f"{METHODS[method]} net", **look)
        ax.axhline(1, color=style.GREY, lw=0.7)
        ax.set(yscale="log", xlim=(0, 1), xticks=[0, 1], xticklabels=["worst\nfitted", "best\nfitted"])
        ax.set_title(f"{result.title.removeprefix('CelebA, ')}:\n{attribute} ({kind})", fontsize=6.8)
    plt.setp(grid[:, 0], ylabel="phantom / real")
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def weight_maps(result: Result, seed: int = 0) -> Figure:
    """Figures 5 and 8 on one data set: the median real and phantom weight and their ratio, over its median, by the
    contributions of both features, signed by the label; a column for each moment of SGD's and of SAM's net of one seed
    (its place among the seeds that both finished)."""
    columns = []
    for method, epoch in product(("sgd", "sam"), result.protocol.moments):
        maps = _maps(result.measured(epoch)[method][seed], result.features)
        columns.append((f"{METHODS[method]} net,\nepoch {epoch}", maps))
    fig, grid = plt.subplots(3, len(columns), figsize=(style.PAGE_WIDTH, 5.6), squeeze=False)
    weight = style.weight_scale([one for _, maps in columns for one in maps[:2]])
    bound = max(style.decades(maps[2])[1] for _, maps in columns)
    for (title, maps), row in zip(columns, grid.T):
        weights, ratios = style.weight_maps(row, maps, weight, bound)
        row[0].set_title(title, loc="center", fontsize=8.5)
        for ax in row:
            ax.axvline(0, color="black", lw=0.7, ls=(0, (1, 2)))
            ax.tick_params(labelsize=7, length=2, pad=1, labelbottom=ax is row[2])
    for ax, symbol in zip(grid[:, 0], style.WEIGHTS):
        ax.set_ylabel(symbol)
    fig.supxlabel(f"signed contribution of the easy feature, {result.features[0]}", fontsize=9)
    fig.supylabel(f"signed contribution of the hard feature, {result.features[1]}", fontsize=9)
    above = fig.colorbar(weights, ax=grid[:2], aspect=30, pad=0.015, fraction=0.05)
    below = fig.colorbar(ratios, ax=grid[2], extend="both", aspect=15, pad=0.015, fraction=0.05)
    below.set_ticks([-bound, 0, bound], labels=[f"÷ {10**bound:.2g}", "1", f"× {10**bound:.2g}"])
    style.small_bars({"median weight": above, "over the typical\nimage's": below})
    return fig


def _maps(metrics: Mapping, features: tuple[str, str]) -> list[WeightMap]:
    """The maps of real and phantom weight and of their ratio, as stored, with the easy feature first."""
    found = metrics["contributions"]["label"]["map"]
    step = -1 if found["attributes"] != list(features) else 1
    edges = [np.array(axis) for axis in found["edges"][::step]]
    count, *medians = (np.array(found[name], dtype=float) for name in ("images", "real", "phantom", "ratio"))
    turned = [(one.T if step < 0 else one) for one in (count, *medians)]
    return [WeightMap(median, turned[0], *edges) for median in turned[1:]]


class Reading(NamedTuple):
    """What one trained net makes of test pairs whose two images are of different classes."""

    images: Tensor  # uint8 (n, 3, height, width)
    attributes: dict[str, Tensor]  # int64 (n,) each: the truth
    answers: Tensor  # int64 (n,): the net's own answer
    probed: dict[str, np.ndarray]  # int64 (n,) each: what the attribute's probe reads


def read_pairs(trial: ImageTrial, count: int, place: Place = Place()) -> Reading:
    """Let the trial's net read the first `count` balanced test pairs of two classes.

    The net is the one in the place's checkpoints; where there is none it is trained.
    """
    device = devices.pick(place.device)
    data = trial.data.load(trial.seed, trial.size, place.root)
    model = trial.train(data, device, place).model
    first, second = data.probe_test.attributes.values()
    pairs = data.probe_test.take((first != second).nonzero()[:count, 0].numpy())
    shown = Images.of(pairs, data.mean_pixel, device)
    answers, phi = training.logits(model, shown).argmax(1).cpu(), training.features(model, shown)
    probed = {name: probe.predict(phi) for name, probe in fit_probes(model, data, trial.strengths).items()}
    return Reading(pairs.images, pairs.attributes, answers, probed)


def readings(by_method: Mapping[str, Reading]) -> Figure:
    """Test pairs of two classes; below each, by method, whose class the net answers and what its probes read.

    A cross marks a probe's mistake.
    """
    first = next(iter(by_method.values()))
    columns = 1 + max(4, len(first.images))  # few pictures stay small
    words = 0.42 * len(by_method)  # inches below the pictures
    height = words + 2.05 * style.PAGE_WIDTH / (1.1 * columns)
    place = {"left": 0, "right": 1, "top": 1, "bottom": words / height, "wspace": 0.1}
    fig, axes = plt.subplots(1, columns, figsize=(style.PAGE_WIDTH, height), layout="none", gridspec_kw=place)
    for ax in axes:
        ax.imshow(np.ones((*first.images.shape[2:], 3)))
        ax.set_axis_off()
    for line, (method, reading) in enumerate(by_method.items()):
        look = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top", "fontsize": "x-small"}
        look |= {"xytext": (0, -8 - 30 * line), "color": COLOURS[method]}
        axes[0].annotate(f"{METHODS[method]} answers by\nits probes read", (1, 0), ha="right", **look)
        for i, (image, ax) in enumerate(zip(reading.images, axes[1:])):
            ax.imshow(image.permute(1, 2, 0))
            truth = {name: int(values[i]) for name, values in reading.attributes.items()}
            answer, probed = int(reading.answers[i]), {name: int(values[i]) for name, values in reading.probed.items()}
            followed = [ATTRIBUTES[name] for name in truth if truth[name] == answer] or ["neither"]
            read = [CLASSES[name][probed[name]] + " \N{BALLOT X}" * (probed[name] != truth[name]) for name in truth]
            ax.annotate(f"{followed[0]}\n{', '.join(read)}", (0.5, 0), ha="center", **look)
    return fig
