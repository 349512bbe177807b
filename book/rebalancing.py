"""Chapter 04: the rules of C2 and C5, and the phantom head beside the real one (Figures 2B and 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from book import style, toy
from book.claims import Check, Outcome, compared, weakest
from lib.stats import estimate, rank_correlation

HARDLY = 1 / 3  # of the phantom ratio's change: a real ratio that changes by less hardly moves
FEATURES = {"easy": (style.EASY, "s"), "hard": (style.HARD, "o")}
REAL = {"linestyle": (0, (4, 2)), "linewidth": 1.1}  # the real head is dashed, the phantom solid
MIDDLE = 80  # per cent of the steps and seeds that a shaded range holds


def checks_c2(rhos: Sequence[float], chosen: int, phantom: np.ndarray, real: np.ndarray) -> list[Check]:
    """C2 from the phantom and the real ratio of mean weights, (complexity, rho, seed), the first radius 0; the
    complexities are those where the spiral is the hard feature; LSAM is compared at the radius of index `chosen`."""
    if not len(phantom):
        return []
    larger, moved = (ratio[:, chosen] - ratio[:, 0] for ratio in (phantom, real))
    room = np.stack([HARDLY * larger - moved, HARDLY * larger + moved])  # upwards and downwards
    trends = [rank_correlation(rhos, ratio) for ratio in phantom]
    return [
        weakest("rank correlation of ρ with the phantom ratio above 0", trends, +1, main=True),
        weakest(f"phantom ratio at ρ = {rhos[chosen]:g} minus that of SGD above 0", larger, +1),
        weakest("a third of the phantom ratio's change minus the real ratio's above 0", room, +1),
    ]


def readings(head: np.ndarray, sgd: np.ndarray) -> dict[str, np.ndarray]:
    """Four readings of the easy and the hard feature's effective rate at the phantom, each (..., 2), by the heads
    (..., record, 4) of w_e, w_h, w~_e, w~_h under LSAM and under SGD from the same seed; the first is Figure 4's. Means
    over steps, but for the share of the sum, which a step whose sum is near 0 would decide: that is of mean weights."""
    real, phantom = head[..., :2], head[..., 2:]
    means = [weights.mean(axis=-2) for weights in (phantom, real)]
    shares = [mean / mean.sum(axis=-1, keepdims=True) for mean in means]
    lengths = [np.linalg.norm(weights, axis=-1, keepdims=True) for weights in (phantom, real)]
    return {
        "over the net's own weight": (phantom / real).mean(axis=-2),
        "over SGD's weight at the same step": (phantom / sgd[..., :2]).mean(axis=-2),
        "share of the sum, less the real one": shares[0] - shares[1],
        "over the own weight, heads of length 1": (phantom / real / (lengths[0] / lengths[1])).mean(axis=-2),
    }


def checks_c5(rhos: Sequence[float], chosen: int, easy: np.ndarray, hard: np.ndarray) -> list[Check]:
    """C5 from the means over training of w~_e / w_e and w~_h / w_h, each (complexity, rho, seed), of the complexities
    where the spiral is the hard feature; `chosen` as for `checks_c2`. The easy half holds whatever the constants
    (chapter 13), and counts only where it does not."""
    if not len(easy):
        return []
    rate = f"feature: mean of w̃/w at ρ = {rhos[chosen]:g}"
    lowered, raised = (list(map(estimate, values[:, chosen])) for values in (easy, hard))
    below = compared(f"easy {rate} below 1", lowered, high=1)
    return [
        compared(f"hard {rate} above 1", raised, low=1, main=True),
        replace(below, trivial=below.outcome is Outcome.HOLDS),
    ]


def phantom_ratio(
    main: toy.Sweep, simple: toy.Sweep, summaries: Mapping[str, np.ndarray], compared: int, epochs: int
) -> Figure:
    """Figure 2B at either setting, and what the mean stands for at the main one's largest complexity: `summaries`, each
    (rho, seed), and the heads over training at the radius of index `compared`."""
    fig, axes = plt.subplots(2, 2, figsize=(style.PAGE_WIDTH, 5.7))
    for panel, sweep, where in zip(axes[0], (main, simple), ("main", "simple")):
        phantom, real = sweep.ratios
        style.lines(panel, sweep.rhos, dict(zip(sweep.names, phantom)))
        for line, ratio in zip(panel.get_lines(), real):
            panel.plot(sweep.rhos, ratio.mean(axis=-1), color=line.get_color(), **REAL)
        title = f"ratio of mean weights, {where} setting"
        panel.set(title=title, xlabel=style.RADIUS, ylabel=r"$\tilde w_h\, /\, \tilde w_e$")
        panel.set_ylim(top=1.25 * panel.get_ylim()[1])
        panel.legend(title=r"complexity $\kappa$; dashed: real", loc="upper left", ncols=3, columnspacing=1)
    heads, others = axes[1]
    style.lines(others, main.rhos, summaries, ((style.LSAM, "o"), (style.SAM, "^"), (style.GREY, "X")))
    others.set(title=rf"three summaries, $\kappa$ = {main.names[-1]}", xlabel=style.RADIUS)
    others.legend(loc="upper left")
    trace = main.heads[-1, compared]  # (seed, record, 4)
    steps = trace.shape[1]
    time = np.tile(np.arange(steps) * epochs // steps + 0.5, len(trace))
    for i, (feature, (colour, _)) in enumerate(FEATURES.items()):
        real, phantom = ({"y": trace[..., k].ravel(), "color": colour, "ax": heads} for k in (i, i + 2))
        sns.lineplot(x=time, **phantom, errorbar=("pi", MIDDLE), label=rf"$\tilde w_{feature[0]}$")
        sns.lineplot(x=time, **real, errorbar=None, label=rf"$w_{feature[0]}$", **REAL)
    heads.axhline(0, color="black", linewidth=0.6)
    heads.legend(loc="upper left", ncols=2, columnspacing=1, handlelength=1.8)
    heads.set(xscale="log", xlabel="epoch", ylabel="weight")
    heads.set_title(rf"over training, $\rho$ = {main.rhos[compared]:g}, $\kappa$ = {main.names[-1]}")
    return fig


def effective_rates(main: toy.Sweep, simple: toy.Sweep, compared: int, epochs: int) -> Figure:
    """Figure 4 at the main setting's largest complexity, w~_i / w_i over training at the radius of index `compared` and
    its mean against rho; and the same mean at the simple setting."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 2.9), width_ratios=[1.15, 1, 1])
    trace = main.heads[-1, compared]
    parts = np.array_split(trace[..., 2:] / trace[..., :2], epochs, axis=1)
    over_training = np.moveaxis([part.mean(axis=1) for part in parts], -1, 0)  # (feature, epoch, seed)
    looks = [(colour, "") for colour, _ in FEATURES.values()]
    style.lines(axes[0], np.arange(epochs) + 0.5, dict(zip(FEATURES, over_training)), looks)
    for panel, sweep in zip(axes[1:], (main, simple)):
        style.lines(panel, sweep.rhos, dict(zip(FEATURES, sweep.rates[:, -1])), list(FEATURES.values()))
    for panel in axes:
        panel.axhline(1, color="black", linewidth=0.6)
    axes[0].set(xscale="log", xlabel="epoch", ylabel=r"$\tilde w_i\, /\, w_i$")
    axes[0].set_title(rf"over training, $\rho$ = {main.rhos[compared]:g}")
    for panel, where in zip(axes[1:], ("main", "simple")):
        panel.set(xlabel=r"radius $\rho$", title=f"mean, {where} setting")
    axes[1].legend(title="feature", loc="lower left")
    return fig
