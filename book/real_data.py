"""Chapter 7, Table 1 on images: the rules of C7, and of C3 and C4 on natural images, tables and figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from book import protocols, style
from book.claims import Check, Outcome, weakest
from book.protocols import MARGIN, METHODS, NOT_RUN, Result, interval, spread, table
from lib import stats
from lib.importance import WeightMap
from lib.measure import FRACTIONS
from lib.trials.images import Reading

COLOURS = {"sgd": style.SGD, "sam": style.SAM, "lsam": style.LSAM}
MARKERS = {"sgd": "o", "sam": "s", "lsam": "D"}
ATTRIBUTES = {"cifar": "CIFAR", "fmnist": "FMNIST", "mnist": "MNIST"}
CLASSES = {
    "cifar": ("airplane", "automobile"),
    "fmnist": ("T-shirt", "trouser", "pullover", "dress", "coat"),
    "mnist": ("0", "1", "2", "3", "4"),
}
DASHES = (0, (4, 3))
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
                found = replace(found, what=f"{what}, on {images:.0f} images", outcome=Outcome.UNDECIDED, needs=None)
            checks.append(replace(found, trivial=bool(low)))
    return checks


def gini(result: Result, epoch: int | None = None) -> np.ndarray:
    """Gini coefficients (net, real or phantom, seed) of SGD's and SAM's nets after `epoch` (None: the last one)."""
    nets = result.measured(epoch).values()
    return np.array([[[metrics[point]["gini"] for metrics in net] for point in ("real", "phantom")] for net in nets])


def checks_c3(title: str, even: np.ndarray, reduced: bool, main: bool = False) -> list[Check]:
    """C3 on one set, of `gini` at the end (Figure 3): weights are more even at the phantom, within either net, which
    are the main checks, and from SGD's to SAM's."""
    sgd, sam = even
    parts = {
        "SGD-trained: Gini coefficient, real minus phantom, above 0": sgd[0] - sgd[1],
        "SAM-trained: Gini coefficient, real minus phantom, above 0": sam[0] - sam[1],
        "Gini coefficient, SGD-trained real minus SAM-trained phantom, above 0": sgd[0] - sam[1],
    }
    return [
        weakest(f"{title}, {what}", values, +1, MARGIN, main and "trained: " in what, reduced)
        for what, values in parts.items()
    ]


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


def checks_c4(title: str, changed: Mapping[str, np.ndarray], reduced: bool, main: bool = False) -> list[Check]:
    """C4 on one set, of `changes` at the end (Figure 5), each for both nets; the main check is that the ratio rises
    more with the easy contribution than with the hard one. The share of the images that the easy feature fits well and
    the hard one badly is not in the stored records."""
    words = f"{title}, both nets: "
    difference = changed["slope easy"] - changed["slope hard"]
    easy, hard = (f"share of the {kind} feature's worst quarter, change " for kind in ("easy", "hard"))
    return [
        weakest(words + "slope on the easy less on the hard contribution above 0", difference, +1, 0, main, reduced),
        weakest(words + easy + "below 0", changed["share easy"], -1, MARGIN, reduced=reduced),
        weakest(words + hard + "above 0", changed["share hard"], +1, MARGIN, reduced=reduced),
        Check(words + "share of images that the easy feature fits well and the hard one badly, change above 0"),
    ]


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


def rows_of_sweep(result: Result) -> dict[str, dict[str, str]]:
    """The hard probing error (%) over the sweep, one net a setting: how much of the difference is tuning?"""
    errors = table(result.sweep).query("measure == @result.features[1]").set_index(["lr", "rho"]).error * 100
    sgd, sam = errors.xs(0.0, level="rho"), errors[errors.index.get_level_values("rho") > 0]
    below = sum(error < sgd.get(lr, 0) for (lr, _), error in sam.items())
    ours = [errors.get((result.settings[name].lr, result.settings[name].rho), np.nan) for name in ("sgd", "sam")]
    row = {
        "SGD, from to": f"{sgd.min():.1f} to {sgd.max():.1f}",
        "SAM, from to": f"{sam.min():.1f} to {sam.max():.1f}",
        "SAM below SGD at the same rate": f"{below} of {len(sam)}",
        "selected: SGD less SAM": f"{ours[0] - ours[1]:.1f}",
        "SGD at its best less SAM": f"{sgd.min() - ours[1]:.1f}",
    }
    return {result.title: row}


def rows_of_test(result: Result) -> dict[str, dict[str, str]]:
    """Whether the test error tells of the hard feature over the sweep."""
    swept = table(result.sweep)
    errors = swept.pivot(index=["lr", "rho"], columns="measure", values="error")
    correlation = stats.rank_correlation(errors["test"].to_numpy(), errors[[result.features[1]]].to_numpy())[0]
    row = {"settings": str(len(errors)), "test images wrong": wrong(swept, "test")}
    return {result.title: row | {"rank correlation with the hard probing error": f"{correlation:.2f}"}}


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
    """What the prose quotes of one set: gains on either feature in points, LSAM's on the hard one, how often the easy
    feature's probe errs, the probes' images and what one is in points, and how many images' weights were measured."""
    names = "hard", "easy", "lsam", "wrong", "images", "image", "across", "weights", "rho"
    if result is None:
        return dict.fromkeys(names, NOT_RUN)
    easy, hard = result.features
    images = result.table.query("measure == @hard").examples.max()
    found = {"hard": interval(100 * result.gains(hard)), "easy": interval(100 * result.gains(easy))}
    if "lsam" in result.settings:
        found["lsam"] = interval(100 * result.gains(hard, "lsam"))
    found |= {"wrong": wrong(result.table, easy), "images": f"{images:.0f}", "image": f"{100 / images:.2f}"}
    if result.weights:
        (real, _), (_, phantom) = gini(result)
        points = result.measured()["sgd"][0]["real"]["points"]
        found |= {"across": interval(real - phantom, 3), "weights": f"{points:,}"}
    return dict.fromkeys(names, NOT_RUN) | found | {"rho": f"{result.settings['sam'].rho:g}"}


# Figures.


def learning_curves(results: Sequence[Result]) -> Figure:
    """Training and validation loss (log scale) and validation error (%) by epoch, a row a data set.

    Thin lines are seeds, thick lines their mean (of the losses the geometric one).
    """
    labels = {"train_loss": "training loss", "validation_loss": "validation loss"}
    labels["validation_error"] = "validation error (%)"
    size = style.PAGE_WIDTH, 0.5 + 2.1 * len(results)
    fig, grid = plt.subplots(len(results), len(labels), figsize=size, sharex="row", squeeze=False)
    for result, row in zip(results, grid):
        row[0].set_title(result.title)
        nets = [one for one in result.records if one["status"] == "finished" and one["configuration"]["epochs"]]
        for (quantity, label), ax in zip(labels.items(), row):
            is_loss = quantity != "validation_error"
            for method, colour in COLOURS.items():
                curves = np.array([one["curve"][quantity] for one in nets if one["configuration"]["method"] == method])
                if not len(curves):
                    continue
                curves = curves if is_loss else 100 * curves
                mean = np.exp(np.log(np.maximum(curves, 1e-12)).mean(0)) if is_loss else curves.mean(0)
                epochs = np.arange(1, curves.shape[1] + 1)
                ax.plot(epochs, curves.T, color=colour, lw=0.7, alpha=0.4)
                ax.plot(epochs, mean, color=colour, lw=1.8, marker=MARKERS[method], ms=4, label=METHODS[method])
            ax.set(xlabel="epoch", ylabel=label, yscale="log" if is_loss else "linear")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        row[-1].set_ylim(bottom=0)
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(COLOURS))
    return fig


def panels(results: Iterable[Result]) -> list[tuple[Result, str, str]]:
    """The hard and the easy feature of every set: result, attribute, title."""
    kinds = [(result, *pair) for result in results for pair in zip(reversed(result.features), ("hard", "easy"))]
    return [(one, name, f"{ATTRIBUTES.get(name, name)} ({kind})\nin {one.title}") for one, name, kind in kinds]


def probing_errors(results: Sequence[Result]) -> Figure:
    """Above: probing errors (%) of the hard and the easy feature by method. Below: their change against SGD.

    Small dots are seeds, joined where they share a seed; marks with bars are means with 95 % bootstrap intervals over
    seeds (for one seed a mark alone); the dashed line is the mean of the untrained net.
    """
    columns = panels(results)
    size = {"figsize": (style.PAGE_WIDTH, 4.4), "height_ratios": (3, 2)}
    fig, (above, below) = plt.subplots(2, len(columns), sharex=True, squeeze=False, **size)
    for (result, attribute, title), upper, lower in zip(columns, above, below):
        errors = 100 * result.errors.xs(attribute, axis=1, level="measure")
        if "untrained" in errors:
            upper.axhline(errors.untrained.mean(), color=style.GREY, lw=1, ls=DASHES, zorder=0)
        errors = errors[[method for method in COLOURS if method in errors]]
        _seeds(upper, errors)
        upper.set_ylim(bottom=0, top=1.08 * upper.get_ylim()[1])
        upper.set_title(title.replace("\n", " ") if len(columns) < 3 else title)
        lower.axhline(0, color=style.GREY, lw=1, zorder=0)
        _seeds(lower, errors.sub(errors.sgd, axis=0).assign(sgd=np.nan))
        lower.set_xticks(range(errors.shape[1]), [METHODS[method] for method in errors])
        lower.set_xlim(-0.45, errors.shape[1] - 0.3)
        lower.margins(y=0.15)
    above[0].set_ylabel("probing error (%)")
    below[0].set_ylabel("change against SGD\n(percentage points)")
    fig.align_ylabels([above[0], below[0]])
    key = {
        "one seed": {"marker": "o", "ms": 3.5, "lw": 0.7, "alpha": 0.6},
        "mean and 95 % interval": {"marker": "s", "ms": 6, "lw": 1.5, "mec": "white"},
        "untrained net": {"lw": 1, "ls": DASHES},
    }
    grey = {label: look | {"color": style.GREY} for label, look in key.items()}
    style.legend(fig, grey, loc="outside lower center", ncols=3)
    return fig


def _seeds(ax: Axes, errors: pd.DataFrame) -> None:
    """A dot for each seed (a row), a line through the dots of one seed, and beside them the mean and its interval."""
    ax.plot(range(errors.shape[1]), errors.to_numpy().T, color=style.GREY, lw=0.7, alpha=0.5, zorder=1)
    for place, (method, values) in enumerate(errors.items()):
        values = values.dropna().to_numpy()
        if not len(values):
            continue
        ax.plot([place] * len(values), values, "o", color=COLOURS[method], ms=3.5, mew=0, alpha=0.65, clip_on=False)
        mean = stats.estimate(values)
        ends = [[mean.mean - mean.low], [mean.high - mean.mean]] if mean.n > 1 else None
        mark = {"ms": 6, "mec": "white", "mew": 0.6, "capsize": 2.5, "lw": 1.5, "zorder": 3}
        ax.errorbar(place + 0.24, mean.mean, ends, color=COLOURS[method], marker=MARKERS[method], **mark)


def against_rho(results: Sequence[Result]) -> Figure:
    """Probing error (%) of the hard and of the easy feature at every rho (0 is SGD), a line for each learning rate: one
    net each, of seed 0. A ring marks the setting selected for SGD and for SAM on validation data."""
    columns = panels(results)
    fig, axes = plt.subplots(1, len(columns), figsize=(style.PAGE_WIDTH, 2.9), squeeze=False)
    for (result, attribute, title), ax in zip(columns, axes[0]):
        errors = 100 * table(result.sweep).pivot(index="rho", columns=["measure", "lr"], values="error")[attribute]
        radii = [0.0, *result.protocol.radii]
        errors = errors.reindex(radii).reset_index(drop=True)
        for (lr, line), colour, marker in zip(errors.items(), style.sequence(errors.shape[1]), style.MARKERS):
            ax.plot(line, color=colour, marker=marker, ms=4, lw=1.3, label=f"learning rate {lr:g}")
        for method in ("sgd", "sam"):
            chosen = result.settings[method]
            if chosen.lr in errors and chosen.rho in radii:  # else a setting of the reader's
                at = radii.index(chosen.rho)
                ax.plot(at, errors[chosen.lr][at], "o", ms=11, mfc="none", mew=1.6, mec=COLOURS[method])
        ax.set_xticks(range(len(radii)), [f"{rho:g}".lstrip("0") or "0" for rho in radii], fontsize="x-small")
        ax.set_xlabel(r"$\rho$")
        low, high = ax.get_ylim()
        # From 0, unless the differences would drown; room for the rings.
        ax.set_ylim(0 if low < high / 2 else low - 0.1 * (high - low), high + 0.12 * (high - low))
        ax.set_title(title)
    axes[0, 0].set_ylabel("probing error (%)")
    handles = axes[0, 0].get_legend_handles_labels()[0]
    handles.append(Line2D([], [], ls="", marker="o", ms=10, mfc="none", mec=style.GREY, label="selected"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return fig


def against_test_error(results: Sequence[Result]) -> Figure:
    """Probing error of the hard feature (%) against test error (%), a mark for each setting of the sweep."""
    fig, axes = plt.subplots(1, len(results), figsize=(style.PAGE_WIDTH, 2.9), squeeze=False)
    for result, ax in zip(results, axes[0]):
        hard = result.features[1]
        errors = 100 * table(result.sweep).pivot(index=["method", "lr", "rho"], columns="measure", values="error")
        for method in ("sam", "sgd"):
            of_method, mark = errors.loc[method], {"ms": 6, "mec": "white", "mew": 0.5, "alpha": 0.75}
            look = {"color": COLOURS[method], "label": METHODS[method]}
            ax.plot(of_method["test"], of_method[hard], MARKERS[method], **look, **mark)
        name = ATTRIBUTES.get(hard, hard)
        ax.set(xlabel="test error (%)", ylabel=f"probing error of {name} (%)", title=result.title)
        ax.set_xlim(left=min(0, ax.get_xlim()[0]))
        ax.margins(x=0.1)
        ax.xaxis.set_major_locator(MaxNLocator(6))
    axes[0, 0].legend()
    return fig


def lorenz_of_pairs(results: Sequence[Result]) -> Figure:
    """Figure 3 for the paired sets: Lorenz curves of importance weights at the real and at the phantom parameters of
    nets that SGD and SAM trained, mean and range over seeds."""
    fig, axes = plt.subplots(1, len(results), figsize=(style.PAGE_WIDTH, 3.2), squeeze=False)
    for result, ax in zip(results, axes[0]):
        # Few pairs hold nearly everything: a linear axis would show a corner.
        ax.set(xlabel="share of the training pairs, heaviest first", title=result.title, xscale="log", xlim=(0.01, 1))
        _lorenz(ax, result.measured(), {"real": "-", "phantom": ":"}, DASHES, first=1)
    axes[0, 0].set_ylabel("their share of the importance")
    return fig


def lorenz_curves(results: Sequence[Result]) -> Figure:
    """Figures 3 and 7: Lorenz curves of the importance weights of training images, a row for each data set, a column
    for each moment of training; mean and range over seeds."""
    columns = max(len(result.protocol.moments) for result in results)
    size = {"figsize": (style.PAGE_WIDTH, 0.7 + 2.7 * len(results)), "sharex": True, "sharey": True}
    fig, grid = plt.subplots(len(results), columns, squeeze=False, **size)
    for result, row in zip(results, grid):
        moments = result.protocol.moments
        for epoch, ax in zip(moments, row):
            end = " (the end)" if epoch == moments[-1] else ""
            ax.set(xlim=(0, 1), title=f"{result.title}, epoch {epoch}{end}")
            _lorenz(ax, result.measured(epoch), LINES, ":")
        for ax in row[len(moments) :]:
            ax.set_axis_off()
        row[0].set_ylabel("share of the importance")
    plt.setp(grid[-1], xlabel="share of the training images, heaviest first")
    return fig


def _lorenz(ax: Axes, nets: Mapping[str, list[dict]], lines: Mapping[str, Any], even: Any, first: int = 0) -> None:
    """Lorenz curves of each method's nets, from the `first` stored point on; the line `even` is of equal weights."""
    shares = FRACTIONS[first:]
    ax.plot(shares, shares, color=style.GREY, lw=0.8, ls=even)
    for method, net in nets.items():
        for point, line in lines.items():
            curves = np.array([metrics[point]["lorenz"] for metrics in net])[:, first:]
            label = f"{METHODS[method]} net, {point}: Gini {np.mean([one[point]['gini'] for one in net]):.3f}"
            ax.plot(shares, curves.mean(0), color=COLOURS[method], ls=line, lw=1.8, label=label)
            style.band(ax, shares, curves.min(0), curves.max(0), COLOURS[method], alpha=0.15)
    ax.set_ylim(0, 1.01)
    ax.legend(loc="lower right", fontsize="x-small")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def along_contributions(results: Sequence[Result]) -> Figure:
    """Figure 5 feature by feature, at the end of training: the median weight of the images, and the ratio of phantom to
    real weight over its median, along the contribution of either feature, signed by the label, in bins of equally many
    images from the worst fitted to the best; geometric mean and range over seeds."""
    size = style.PAGE_WIDTH, 0.7 + 2.3 * len(results)
    fig, grid = plt.subplots(len(results), 4, figsize=size, sharex=True, squeeze=False)
    for result, row in zip(results, grid):
        for column, (kind, attribute) in enumerate(zip(("easy", "hard"), result.features)):
            weights, ratios = row[column], row[column + 2]
            for method, net in result.measured().items():
                bins = [one["contributions"]["label"]["attributes"][attribute]["bins"] for one in net]
                for point, line in LINES.items():
                    _along(weights, bins, point, COLOURS[method], ls=line)
                _along(ratios, bins, "ratio", COLOURS[method], marker=MARKERS[method])
            ratios.axhline(1, color=style.GREY, lw=0.7)
            weights.set_title(f"{attribute} ({kind}):\nmedian weight", fontsize="small")
            ratios.set_title(f"{attribute} ({kind}):\nphantom / real", fontsize="small")
        for left, right in (row[:2], row[2:]):
            limits = [limit for ax in (left, right) for limit in ax.get_ylim()]
            for ax in (left, right):
                ax.set(ylim=(min(limits), max(limits)), xlim=(0, 1))
                ax.tick_params(labelsize=8)
            right.tick_params(axis="y", which="both", labelleft=False)
        row[0].set_ylabel(result.title, fontweight="bold")
    plt.setp(grid[-1], xticks=[0, 1], xticklabels=["worst\nfitted", "best\nfitted"])
    nets = {
        "SGD net": {"color": style.SGD, "marker": "o", "ms": 4},
        "SAM net": {"color": style.SAM, "marker": "s", "ms": 4},
    }
    points = {point: {"color": style.GREY, "ls": line} for point, line in LINES.items()}
    style.legend(fig, nets | points, loc="outside lower center", ncols=4)
    return fig


def _along(ax: Axes, bins: Sequence[Mapping], name: str, colour: str, **options: Any) -> None:
    values = np.log(np.array([one[name] for one in bins]))
    places = (np.arange(values.shape[1]) + 0.5) / values.shape[1]
    style.band(ax, places, *np.exp([values.min(0), values.max(0)]), colour, alpha=0.14)
    ax.plot(places, np.exp(values.mean(0)), color=colour, lw=1.5, ms=3, **options)
    ax.set_yscale("log")


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
