"""Chapter 7, Table 1 on images: the rule of C7, tables, the sweep, and figures; chapter 16 shows natural images by the
same."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

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
from book.image_trial import ImageTrial
from book.protocols import METHODS, NOT_RUN, Result, interval, spread
from lib import device as devices
from lib import stats, training
from lib.measure import FRACTIONS, fit_probes
from lib.training import Images
from lib.trials.trial import Place

COLOURS = {"sgd": style.SGD, "sam": style.SAM, "lsam": style.LSAM}
ATTRIBUTES = {"cifar": "CIFAR", "fmnist": "FMNIST", "mnist": "MNIST"}
LINES = {"real": (0, (3, 1.5)), "phantom": "-"}
CHOICES = {"validation": ["validation error", "validation loss"], "oracle": ["hard"]}  # see `gains_of_choice`
PROBED = 300  # test images of a probe; on fewer no claim is decided


def checks_c7(results: Mapping[str, Result | None]) -> list[Check]:
    """C7 on these sets: either feature's probing error is higher under SGD than under SAM; the hard one's on the
    paper's sets are the main checks.

    The paired sets are judged on the whole protocol only, and not run short of it; natural ones are marked as reduced.
    A check is undecided where the probe has fewer than PROBED test images, and counts for nothing where SGD's error is
    MARGIN at most: there is nothing left to lower.
    """
    checks = []
    for name, result in results.items():
        if result is None or (result.lacking and name in protocols.PAIRED):
            checks.append(Check(f"{protocols.TITLES[name]}: SAM's probing errors below SGD's", main=True))
            continue
        images = result.table.query("measure in @result.features").examples.min()
        for attribute, kind in result.attributes[::-1]:
            what = f"{result.title}: {kind} probing error of SGD less SAM's above 0"
            low = bool(result.errors["sgd", attribute].mean() <= MARGIN)
            margin, main = 0 if low else MARGIN, kind == "hard" and name in protocols.TABLE_1
            found = weakest(what, result.gains(attribute), +1, margin, main, bool(result.lacking))
            few = {"what": f"{what}, probed on {images:.0f} images", "outcome": Outcome.UNDECIDED, "needs": None}
            checks.append(replace(found, trivial=low, **few if images < PROBED else {}))
    return checks


def gini(result: Result, epoch: int | None = None) -> np.ndarray:
    """Gini coefficients (real or phantom, net, seed) of SGD's and SAM's nets after `epoch` (None: the last one)."""
    nets = result.measured(epoch).values()
    return np.array([[[metrics[point]["gini"] for metrics in net] for net in nets] for point in LINES])


# Rows of tables, and numbers for the prose.


def rows(of_one: Callable[..., dict], results: Iterable[Result], *more: Any) -> dict[str, Any]:
    """The rows of all results, each as by `of_one`, or one that says that nothing was run."""
    return {name: row for result in results for name, row in of_one(result, *more).items()} or {"": NOT_RUN}


def rows_of_table(result: Result) -> dict[str, dict[str, str]]:
    """One set of Table 1 in per cent, a row a measure: every method's mean ± standard deviation over seeds, and SGD's
    error less SAM's."""
    measures = {"test": "test", "worst group": "worst group"}
    for what, answer in (("probe", ""), ("own answer", "answer ")):
        measures |= {
            f"{what}, {ATTRIBUTES.get(one, one)} ({kind})": answer + one for one, kind in result.attributes[::-1]
        }
    title, errors, rows = result.title + (", reduced" if result.lacking else ""), 100 * result.errors, {}
    for what, measure in measures.items():
        if ("sgd", measure) in errors:
            there = {METHODS[name]: errors[name, measure] for name in METHODS if (name, measure) in errors}
            rows[f"{title}: {what}"] = {name: spread(of) for name, of in there.items()}
            rows[f"{title}: {what}"]["SGD less SAM"] = interval(100 * result.gains(measure))
    return rows


def rows_of_evenness(result: Result) -> dict[str, dict[str, str]]:
    """What C3 is about at every moment, over seeds: Gini coefficients of either net's real and phantom weights, mean
    weights, and by what the phantom multiplies the weight of the median image, where that was measured."""
    rows = {}
    for epoch in result.protocol.moments:
        for (method, net), (real, phantom) in zip(result.measured(epoch).items(), gini(result, epoch).swapaxes(0, 1)):
            row = {"Gini, real": spread(real, 3), "phantom": spread(phantom, 3)}
            row["real less phantom"] = interval(real - phantom, 3)
            row |= {f"mean, {name}": spread([one[name]["mean"] for one in net], 2, "g") for name in LINES}
            row |= {"median, times": spread([one["median_ratio"] for one in net])} if "median_ratio" in net[0] else {}
            rows[f"{result.title}, {METHODS[method]}, epoch {epoch}"] = row
    return rows


def numbers(result: Result | None) -> dict[str, str]:
    """What the prose quotes of one set: gains on either feature in points, LSAM's and those of SGD's training on the
    hard one; how often the easy feature's probe errs in trained nets, the probes' images and what one is in points; of
    how many images weights were measured, and the fall of the Gini coefficient from SGD's real to SAM's phantom ones;
    rho; the lacks."""
    names = "hard", "easy", "lsam", "trained", "wrong", "images", "image", "across", "weights", "rho", "lacking"
    found = dict.fromkeys(names, NOT_RUN)
    if result is None:
        return found
    easy, hard = result.features
    images = result.table.query("measure == @hard").examples.max()
    wrong = result.table.query("measure == @easy and method != 'untrained'").eval("error * examples").astype(float)
    gains = {"hard": (hard, "sam"), "easy": (easy, "sam"), "trained": (hard, "untrained"), "lsam": (hard, "lsam")}
    for name, of in gains.items():
        if (gain := result.gains(*of)).size:
            found[name] = interval((-100 if name == "trained" else 100) * gain)
    found |= {"wrong": f"{wrong.min():.0f} to {wrong.max():.0f} of {images:.0f}", "images": f"{images:.0f}"}
    found |= {"image": f"{100 / images:.2f}", "rho": f"{result.settings['sam'].rho:g}"}
    found["lacking"] = ", ".join(result.lacking) or "nothing is lacking"
    if result.weights:
        (real, _), (_, phantom) = gini(result)
        found["across"] = interval(real - phantom, 3)
        found["weights"] = f"{result.measured()['sgd'][0]['real']['points']:,}"
    return found


# The sweep.


def swept(result: Result) -> pd.DataFrame:
    """The `protocols.nets` of the sweep, with the hard probing error in per cent, ``hard``, and that of SGD at the same
    learning rate and seed less it, ``gain``."""
    nets = protocols.nets(result.sweep).eval("hard = 100 * `" + result.features[1] + "`")
    sgd = nets[nets.method == "sgd"].set_index(["lr", "seed"]).hard.rename("sgd")
    return nets.join(sgd, on=["lr", "seed"]).eval("gain = sgd - hard")


def gains_of_choice(nets: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """The hard probing error of SGD less SAM's, (seed,), where each seed chooses the setting of either method, see
    `protocols.best`."""
    chosen = protocols.best(nets, by).pivot(index="seed", columns="method", values="hard")
    return (chosen.sgd - chosen.sam).dropna().to_numpy()


def numbers_of_sweep(result: Result | None) -> dict[str, str]:
    """What the prose quotes of a sweep: its seeds, and the gains on the hard feature where each seed chooses by
    validation data or, as an oracle, by the hard probe."""
    if result is None:
        return dict.fromkeys(("seeds", *CHOICES), NOT_RUN)
    nets = swept(result)
    found = {name: interval(gains_of_choice(nets, by), 1) for name, by in CHOICES.items()}
    return found | {"seeds": str(nets.seed.nunique())}


def rows_of_sweep(results: Iterable[Result]) -> dict[str, Any]:
    """The sweeps, a column over seeds and one for each: how much of the difference is tuning, what hangs on the choice
    of a setting, and does the test error tell?"""
    columns: dict[str, dict[str, str]] = {}
    for result in results:
        nets = swept(result)
        if (count := nets.seed.nunique()) > 1:
            columns[f"{result.title}, over {count} seeds"] = _of_sweep(nets)
        columns |= {f"{result.title}, seed {seed}": _of_sweep(of) for seed, of in nets.groupby("seed")}
    return pd.DataFrame(columns).T.fillna("").to_dict() or {"": NOT_RUN}


def _of_sweep(nets: pd.DataFrame) -> dict[str, str]:
    """A column of `rows_of_sweep`: of one seed's nets, or over seeds."""
    at, several = nets[nets.method == "sam"].groupby(["lr", "rho"]).gain, nets.seed.nunique() > 1
    found = {"SAM's settings below SGD at the same rate": _count(at.mean() > 0)}
    if several:
        found["below SGD at the same rate on every seed"] = _count(at.min() > 0)
        found["below SGD at the same rate by the interval"] = _count(
            at.agg(stats.estimate).map(lambda one: one.low > 0)
        )
    for name, words in (("validation", "validation"), ("oracle", "the hard probe")):
        gain = gains_of_choice(nets, CHOICES[name])
        found[f"SGD less SAM, chosen by {words}"] = interval(gain, 1) if several else f"{gain[0]:.1f}"
    if several:
        return found
    for name, of in nets.groupby("method"):
        found[f"{METHODS[name]}, from to"] = f"{of.hard.min():.1f} to {of.hard.max():.1f}"
        tied = of["validation error"] == of["validation error"].min()
        found[f"{METHODS[name]}'s settings at the lowest validation error"] = _count(tied)
    told = stats.rank_correlation(nets.test.to_numpy(), nets[["hard"]].to_numpy())[0]
    return found | {"rank correlation with the test error": f"{told:.2f}"}


def _count(true: pd.Series) -> str:
    return f"{true.sum()} of {len(true)}"


# Figures.


def rows_of_gains(names: Sequence[str], label: str) -> tuple[Figure, Axes]:
    """A figure of named rows around zero; shaded is what is too small to matter."""
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 0.9 + 0.3 * len(names)))
    style.rows(ax, names)
    ax.axvspan(-100 * MARGIN, 100 * MARGIN, color=style.GREY, alpha=0.25, lw=0)
    ax.axvline(0, color="black", lw=0.6)
    ax.set_xlabel(label)
    return fig, ax


def gains(results: Sequence[Result]) -> Figure:
    """Probing error of SGD less SAM's, in points, of both features of every set: dots are seeds, marks with bars means
    with 95 % intervals."""
    names = [f"{result.title}: {ATTRIBUTES.get(one, one)}" for result in results for one in result.features[::-1]]
    fig, ax = rows_of_gains(names, "probing error of SGD less SAM's (points)")
    for kind, (name, colour, marker) in enumerate((("hard", style.HARD, "s"), ("easy", style.EASY, "D"))):
        found, rows = [100 * one.gains(one.features[1 - kind]) for one in results], range(kind, len(names), 2)
        for seeds, row in zip(found, rows):
            ax.plot(seeds, np.full(len(seeds), row + 0.22), "o", color=colour, ms=3, mew=0, alpha=0.45)
        style.whiskers(ax, [*map(stats.estimate, found)], rows, colour, marker, label=f"{name} feature", capsize=2.5)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def against_rho(results: Sequence[Result]) -> Figure:
    """Probing error (%) of the hard feature at every rho (0 is SGD), a line for each learning rate: the mean over the
    seeds of the sweep with its 95 % interval, or one net. A ring marks the setting selected for SGD and for SAM."""
    fig, axes = plt.subplots(1, len(results), figsize=(style.PAGE_WIDTH, 3.2), squeeze=False)
    ring = {"ls": "", "marker": "o", "ms": 11, "mfc": "none", "mew": 1.6}
    for result, ax in zip(results, axes[0]):
        nets, (_, hard), radii = swept(result), result.features, [0.0, *result.protocol.radii]
        count = len(result.protocol.rates)
        places = np.linspace(-0.12, 0.12, count)
        for lr, colour, marker, beside in zip(result.protocol.rates, style.sequence(count), style.MARKERS, places):
            line = nets[nets.lr == lr].groupby("rho").hard.agg(stats.estimate)
            at = np.array([radii.index(rho) for rho in line.index]) + beside
            means, *ends = np.array([(one.mean, one.low, one.high) for one in line]).T
            bars = {"yerr": np.abs(ends - means), "elinewidth": 0.9, "label": f"learning rate {lr:g}"}
            ax.errorbar(at, means, **bars, color=colour, marker=marker, ms=4, lw=1.3)
            for method in ("sgd", "sam"):
                chosen = result.settings[method]
                here = (line.index == chosen.rho) & (chosen.lr == lr)  # nowhere, of a setting of the reader's
                ax.plot(at[here], means[here], **ring, mec=COLOURS[method])
        ax.set(xticks=range(len(radii)), xticklabels=[f"{rho:g}" for rho in radii], xlabel=r"$\rho$")
        words = f"mean of {seeds} seeds" if (seeds := nets.seed.nunique()) > 1 else "one seed"
        ax.set_title(f"{result.title}: {ATTRIBUTES.get(hard, hard)} (hard), {words}", fontsize="small")
    axes[0, 0].set_ylabel("probing error (%)")
    handles = axes[0, 0].get_legend_handles_labels()[0]
    handles.append(Line2D([], [], **ring, mec=style.GREY, label="selected on seed 0"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return fig


def lorenz_curves(results: Sequence[Result], first: int = 0) -> Figure:
    """Figure 3: Lorenz curves of the importance weights of training images at the end of training, at the real and at
    the phantom parameters, mean and range over seeds, from the `first` of their hundredths on; where that is not 0, on
    a logarithmic axis: few pairs hold nearly everything. Dotted: equal weights."""
    fig, grid = style.grid(len(results), 2, 2.8, sharey=True)
    shares = FRACTIONS[first:]
    for result, ax in zip(results, grid.flat):
        ax.plot(shares, shares, color=style.GREY, lw=0.8, ls=":")
        for method, net in result.measured().items():
            for point, line in LINES.items():
                curves = np.array([metrics[point]["lorenz"] for metrics in net])[:, first:]
                label = f"{METHODS[method]} net, {point}: Gini {np.mean([one[point]['gini'] for one in net]):.3f}"
                ax.plot(shares, curves.mean(0), color=COLOURS[method], ls=line, lw=1.8, label=label)
                style.band(ax, shares, curves.min(0), curves.max(0), COLOURS[method], alpha=0.15)
        scale, label = "log" if first else "linear", "share of the images, heaviest first"
        ax.set(title=result.title, xscale=scale, xlim=(first / 100, 1), xlabel=label, ylim=(0, 1.01))
        ax.legend(loc="lower right", fontsize="x-small")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
    plt.setp(grid[:, 0], ylabel="their share of the importance")
    return fig


def read_pairs(trial: ImageTrial, count: int, place: Place = Place()) -> tuple[Tensor, list[str]]:
    """The first `count` balanced test pairs of two classes, uint8 (n, 3, height, width), and in words whose class the
    trial's net answers for each and what its probes read, where a cross marks a mistake.

    The net is the one in the place's checkpoints; where there is none it is trained.
    """
    device = devices.pick(place.device)
    data = trial.data.load(trial.seed, trial.size, place.root)
    model = trial.train(data, device, place).model
    first, second = data.probe_test.attributes.values()
    pairs = data.probe_test.take((first != second).nonzero()[:count, 0].numpy())
    shown, probes = Images.of(pairs, data.mean_pixel, device), fit_probes(model, data, trial.strengths)
    phi, words = training.features(model, shown), []
    for i, answer in enumerate(training.logits(model, shown).argmax(1).tolist()):
        truth = {name: int(values[i]) for name, values in pairs.attributes.items()}
        followed = next((ATTRIBUTES.get(name, name) for name in truth if truth[name] == answer), "neither")
        read = {name: int(probes[name].predict(phi)[i]) for name in truth}
        probed = [data.values[name][read[name]] + " \N{BALLOT X}" * (read[name] != truth[name]) for name in truth]
        words.append(f"{METHODS[trial.method]} answers {followed},\nreads {', '.join(probed)}")
    return pairs.images, words


def readings(read: Sequence[tuple[Tensor, list[str]]]) -> Figure:
    """Test pairs, with the words of every net below them, see `read_pairs`."""
    images = read[0][0]
    fig, axes = plt.subplots(1, max(4, len(images)), figsize=(style.PAGE_WIDTH, 3 + 0.3 * len(read)))
    for ax in axes:  # few pictures stay small
        ax.set_axis_off()
    for ax, image, *words in zip(axes, images, *(of_net for _, of_net in read)):
        ax.imshow(image.permute(1, 2, 0))
        ax.annotate("\n".join(words), (0, -0.02), xycoords="axes fraction", va="top", fontsize="x-small")
    return fig
