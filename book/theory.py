"""Chapter 11, Appendix D: the importance weight at the phantom parameter, by a Taylor expansion of the logit.

For a logit f(w), a label y in {-1, +1} and a batch of one example, the ascent is -y rho grad f/||grad f|| for
any loss that falls with the margin m = y f. The margin shrinks by the `shift` m(w) - m(w~), and

    shift = rho ||grad f|| - y/2 rho^2 g'Hg/||g||^2 + ...,   g = grad f, H the Hessian of f.

With the exponential loss the shift is log(lambda~/lambda) itself, with the logistic loss its upper bound. All in
float64 on the CPU: small radii and float precision are what is tested.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from book import style
from book.claims import Check, compared, exact
from lib import check
from lib.data.toy import ToyConstants, sample
from lib.device import threads
from lib.importance import gini
from lib.models import ConvNet, SingleLogit, ToyNet
from lib.stats import estimate
from lib.toy.ensemble import ToyResult
from lib.toy.stack import module

LOSSES = ("exponential", "logistic")
PERTURBED = ("head", "all")  # the parameters that the ascent moves: LSAM's and SAM's


def last_layer_norms(phi: Tensor, outputs: int = 1, bias: bool = False) -> Tensor:
    """Example 1, LSAM: ||grad_w f||, shape (n,), of features (n, d): ||phi(x)|| for one output without bias. With two
    `outputs` f = output 1 - output 0: its norm is sqrt(2) times as large; a `bias` is one more feature, always 1."""
    return torch.sqrt(outputs * (phi.square().sum(1) + bias))


def layer_terms(net: nn.Sequential, x: Tensor) -> Tensor:
    """Examples 2 to 4: the terms ||W_L M_{L-1} ... W_{l+1} M_l||^2 ||h_{l-1}(x)||^2 of ||grad f||^2, (n, L), of a
    `layered` net and x (n, d). M_l keeps the units that are active for an input where there are ReLUs (Example 4), else
    all (Example 3, and 2 of two layers)."""
    weights, hidden, masks = [p.detach() for p in net.parameters()], [x], []
    relu = len(net) > len(weights)
    for weight in weights[:-1]:
        before = hidden[-1] @ weight.T
        masks.append((before > 0).to(x.dtype) if relu else torch.ones_like(before))
        hidden.append(before * masks[-1])
    above = torch.ones(len(x), 1, dtype=x.dtype)  # W_L M_{L-1} ... W_{l+1} M_l, a row an input
    terms = []
    for layer in reversed(range(len(weights))):
        terms.append(above.square().sum(1) * hidden[layer].square().sum(1))
        if layer:
            above = above @ weights[layer] * masks[layer - 1]
    return torch.stack(terms[::-1], dim=1)


def log_weights(margins: np.ndarray, loss: str) -> np.ndarray:
    """log lambda of margins m = y f: -m with the exponential loss, log sigma(-m) with the logistic one."""
    return -margins if loss == "exponential" else -np.logaddexp(0, margins)


def logistic_error(margin: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """By what part of `shift` the logistic log ratio stays below it, where a margin falls by `shift`."""
    return 1 - (log_weights(margin - shift, "logistic") - log_weights(margin, "logistic")) / shift


def expand(
    net: nn.Module, x: Tensor, y: Tensor, radii: Sequence[float], perturbed: str = "all", batch_size: int = 1
) -> pd.DataFrame:
    """The expansion of each example of x (n, ...), labels y (n,) in {-1, +1}, around the net's weights: rows (rho,
    example), indexed so.

    Columns: `label`; `margin` m = y f at w; `norm` ||grad f||; `slope` -y d'grad f along the unit direction d of the
    ascent (the norm itself where the batch is one example); `curvature` d'Hd; `shift` m(w) - m(w~); `first` and
    `second`, its orders: rho times the slope, equation (23), and -y/2 rho^2 d'Hd; and by each of `LOSSES`
    log(lambda~/lambda), equation (19).

    The direction is that of the mean logistic loss of each batch of `batch_size` examples, in the order given;
    `perturbed` is "all" parameters (SAM) or those of the "head" (LSAM). A net with two outputs has the logit f = output
    1 - output 0. Raises ValueError for what is not allowed.
    """
    check.choice("perturbed", perturbed, PERTURBED)
    check.whole("batch_size", batch_size, 1)
    if len(radii) == 0 or min(radii) <= 0:
        raise ValueError(f"radii must be one positive number or more, not {list(radii)!r}")
    if not bool((y.abs() == 1).all()):
        raise ValueError("y must hold labels -1 and +1 only")
    logit, start = _logit(net, perturbed)
    x, y = x.double(), y.double()
    margin, gradients = y * vmap(logit, (None, 0))(start, x), vmap(grad(logit), (None, 0))(start, x)
    weight, batch = log_weights(margin.numpy(), "logistic"), np.arange(len(y)) // batch_size
    # Only ratios within a batch matter: tiny weights would underflow.
    weight -= np.maximum.reduceat(weight, range(0, len(y), batch_size))[batch]
    factors, batch = y * torch.from_numpy(np.exp(weight)), torch.from_numpy(batch)
    ascent = gradients.new_zeros(int(batch[-1]) + 1, len(start)).index_add(0, batch, -factors[:, None] * gradients)
    direction = F.normalize(ascent, eps=1e-300)[batch]  # of unit length, or zero; the same within a batch

    def curvature(d: Tensor, one: Tensor) -> Tensor:
        # A Hessian-vector product, the gradient of d'grad f, and its product with d.
        return grad(lambda p: grad(logit)(p, one) @ d)(start) @ d

    parts = {"label": y, "margin": margin, "norm": gradients.norm(dim=1), "slope": -y * (gradients * direction).sum(1)}
    parts |= {"curvature": vmap(curvature)(direction, x)}
    phantoms = [y * vmap(logit)(start + rho * direction, x) for rho in radii]
    each = [pd.DataFrame(parts | {"shift": margin - phantom}) for phantom in phantoms]
    found = pd.concat(each, keys=map(float, radii), names=["rho", "example"])
    rho = found.index.get_level_values("rho")
    found["first"], found["second"] = rho * found["slope"], -0.5 * rho**2 * found["label"] * found["curvature"]
    for loss in LOSSES:
        found[loss] = log_weights(found["margin"] - found["shift"], loss) - log_weights(found["margin"], loss)
    return found


def typical_error(found: pd.DataFrame, rho: float, loss: str) -> np.ndarray:
    """Size of the first order's error, 1 - log ratio/(rho slope), at a radius of a `survey`: median over the correctly
    classified examples, for each net."""
    one = found.xs(rho, level="rho")
    sizes = (1 - one[loss] / one["first"]).abs().where(one["margin"] > 0)
    return sizes.groupby("net").median().to_numpy()


def typical_second_order(found: pd.DataFrame, rho: float) -> np.ndarray:
    """Size of the second order as a part of the first at a radius: median over examples, for each net."""
    one = found.xs(rho, level="rho")
    return (one["second"] / one["first"]).abs().groupby("net").median().to_numpy()


def _logit(net: nn.Module, perturbed: str) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """f of one example as a function of the perturbed weights, a vector; and that vector. The others stay."""
    weights = {name: p.detach().double() for name, p in net.named_parameters()}
    moved = {name: p for name, p in weights.items() if perturbed == "all" or name.startswith("head.")}
    sizes = [p.numel() for p in moved.values()]

    def logit(vector: Tensor, one: Tensor) -> Tensor:
        parts = {name: part.view(moved[name].shape) for name, part in zip(moved, vector.split(sizes))}
        output = functional_call(net, weights | parts, (one[None],))[0]
        return output if output.ndim == 0 else output[1] - output[0]

    return logit, torch.cat([p.flatten() for p in moved.values()])


def reach(found: pd.DataFrame, loss: str, tolerance: float) -> np.ndarray:
    """The radius at which the first order's error of a `survey` first exceeds `tolerance`: median over examples, for
    each net. Interpolated in log-log; the first radius where it is exceeded from the start, the last where it never
    is."""
    sizes = (1 - found[loss] / found["first"]).abs().clip(lower=1e-300).unstack("rho")
    radii = sizes.columns.to_numpy()

    def crossing(size: np.ndarray) -> float:
        over = np.flatnonzero(size > tolerance)
        if not over.size or not over[0]:
            return radii[0 if over.size else -1]
        ends = slice(over[0] - 1, over[0] + 1)
        return np.exp(np.interp(np.log(tolerance), np.log(size[ends]), np.log(radii[ends])))

    return sizes.apply(crossing, axis=1, raw=True).groupby("net").median().to_numpy()


def batch_effect(alone: pd.DataFrame, together: pd.DataFrame, batch_size: int) -> dict[str, Any]:
    """What a shared perturbation does to the weights (logistic loss), by surveys at one radius, rows (net, example):
    batches of one, and batches of `batch_size`.

    "correlation": Spearman's, of log ratio and gradient norm, (2, nets): alone, in the batch. "falls" (nets,): share of
    examples that lose weight in the batch; "opposite": how many of all those, over all nets, have the label opposite to
    the worst-fitted example of their batch. "spread": standard deviation of the log weights, "gini": Gini coefficient
    of the weights, both (3, nets): at w, at w~ alone, at w~ in the batch.
    """
    margins = [alone["margin"], *(e["margin"] - e["shift"] for e in (alone, together))]
    logs = log_weights(np.stack([margin.unstack("net").T for margin in margins]), "logistic")
    pairs = [e[["norm", "logistic"]].groupby("net") for e in (alone, together)]
    falls = together["slope"] < 0
    labels = together["label"].where(worst_fitted(together, batch_size))
    opposite = labels.groupby(_batches(together, batch_size)).transform("max") != together["label"]
    return {
        "correlation": np.stack([of_nets.corr("spearman").iloc[::2, 1] for of_nets in pairs]),
        "falls": falls.groupby("net").mean().to_numpy(),
        "opposite": float(opposite[falls].mean()) if falls.any() else 0.0,
        "spread": logs.std(axis=-1),
        "gini": gini(np.exp(logs)),
    }


def worst_fitted(found: pd.DataFrame, batch_size: int) -> pd.Series:
    """Which examples, rows (net, example), have the smallest margin of their batch."""
    return found["margin"] == found["margin"].groupby(_batches(found, batch_size)).transform("min")


def _batches(found: pd.DataFrame, batch_size: int) -> list:
    """What rows (net, example) are grouped by for batches."""
    return [found.index.get_level_values("net"), found.index.get_level_values("example") // batch_size]


# The nets, untrained and trained, each with its labelled examples.


def layered(sizes: Sequence[int], relu: bool = True) -> nn.Sequential:
    """The nets of Examples 2 to 4: layers without bias, with ReLU or nothing in between, from inputs (n, sizes[0]) to
    logits (n,); the last of `sizes` is 1."""
    between = [nn.ReLU()] if relu else []
    hidden = [layer for pair in zip(sizes[:-2], sizes[1:-1]) for layer in (nn.Linear(*pair, bias=False), *between)]
    return nn.Sequential(*hidden, SingleLogit(sizes[-2]))


class Subject(NamedTuple):
    """A net with labelled examples: inputs x (n, ...), labels y (n,) in {-1, +1}."""

    net: nn.Module
    x: Tensor
    y: Tensor


RELU_SIZES = (4, 64, 64, 1)
# How `fitted` trains them; all chosen here, but the conv net's rate and momentum, which are the paper's.
RELU_FIT = {"steps": 300, "batch_size": 10, "lr": 0.1, "momentum": 0.0}
CONV_FIT = {"steps": 20, "batch_size": 20, "lr": 0.05, "momentum": 0.9}


def toy_subjects(result: ToyResult, checkpoint: int) -> list[Subject]:
    """Every seed's toy net of the first setting at a checkpoint (an index), with its training points."""
    subjects = []
    for seed, nets, head in zip(result.seeds, result.nets[0][:, checkpoint], result.heads[0, :, checkpoint]):
        points = sample(result.settings[0].data, seed)
        theta = torch.from_numpy(np.column_stack([nets, head]).astype(np.float32))
        subjects.append(Subject(module(theta), torch.from_numpy(points.x), torch.from_numpy(points.y)))
    return subjects


def relu_subject(seed: int) -> Subject:
    """An untrained ReLU net of Example 4, and the toy's points: it sees both features at once."""
    points = sample(ToyConstants(), seed)
    return Subject(_drawn(seed, layered, RELU_SIZES), torch.from_numpy(points.x), torch.from_numpy(points.y))


def conv_subject(seed: int, images: int = 200) -> Subject:
    """The untrained conv net of Section 4 and gratings, 64 by 32, level for y = +1 and upright for -1, of mean 0;
    contrast and tint vary, so that some are easy to fit and some are not."""
    draw = np.random.default_rng([seed, 0x57])
    y = np.where(np.arange(images) % 2 == 0, 1.0, -1.0)
    row, column = np.mgrid[:64, :32] / 16
    grating = np.sin(2 * np.pi * np.where(y[:, None, None] > 0, row, column))
    contrast = draw.uniform(0, 0.4, (images, 1, 1, 1)) * draw.uniform(0.5, 1, (images, 3, 1, 1))
    pixels = contrast * grating[:, None] + draw.normal(0, 0.1, (images, 3, 64, 32))
    x, y = (torch.from_numpy(values).float() for values in (np.clip(pixels, -0.5, 0.5), y))
    return Subject(_drawn(seed, ConvNet, 2), x, y)


def _drawn(seed: int, kind: Callable[..., nn.Module], *given: Any) -> nn.Module:
    """A net whose weights `seed` draws; torch's own generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*given)


@threads(1)  # more gain nothing on tensors this small, and lose much on a busy machine
def fitted(subject: Subject, seed: int, steps: int, batch_size: int, **settings: float) -> Subject:
    """The subject with a copy of its net trained by SGD on the logistic loss; `seed` draws the batches."""
    net, draw = deepcopy(subject.net), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), **settings)
    for _ in range(steps):
        batch = torch.randperm(len(subject.y), generator=draw)[:batch_size]
        output = net(subject.x[batch])
        logit = output if output.ndim == 1 else output[:, 1] - output[:, 0]
        optimizer.zero_grad()
        F.softplus(-subject.y[batch] * logit).mean().backward()
        optimizer.step()
    return subject._replace(net=net)


@threads(1)
def survey(subjects: Iterable[Subject], points: int, *given: Any) -> pd.DataFrame:
    """`expand` for the first `points` examples of every subject, its other arguments `given`: rows (net, rho,
    example)."""
    each = [expand(net, x[:points], y[:points], *given) for net, x, y in subjects]
    return pd.concat(each, keys=range(len(each)), names=["net"])


@threads(1)
def example_differences(draws: int, seed: int = 0) -> dict[str, float]:
    """Largest difference between each closed form and automatic differentiation, by the largest value, over `draws`
    nets, each with widths, depth and ten inputs of its own. The keys begin with the example's number."""
    draw, found = np.random.default_rng(seed), {}

    def compare(name: str, closed: Tensor, reference: pd.Series) -> None:
        difference = float((reference - closed.detach().numpy()).abs().max() / reference.abs().max())
        found[name] = max(found.get(name, 0.0), difference)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        y, options = torch.ones(10), {"dtype": torch.float64}
        for _ in range(draws):
            size, hidden, depth = (int(n) for n in draw.integers((2, 4, 3), (9, 17, 7)))
            net, x = ToyNet(hidden).double(), torch.randn(10, 4, **options)
            compare("1, toy net", last_layer_norms(net.features(x)), expand(net, x, y, [1.0], "head")["norm"])
            net, x = ConvNet(2, height=8, width=8).double(), torch.randn(10, 3, 8, 8, **options)
            norms = last_layer_norms(net.features(x), outputs=2, bias=True)
            compare("1, conv net", norms, expand(net, x, y, [1.0], "head")["norm"])
            net, x = layered((size, hidden, 1), relu=False).double(), torch.randn(10, size, **options)
            norms, e = layer_terms(net, x).sum(1).sqrt(), expand(net, x, y, [1.0])
            compare("2", norms, e["norm"])
            compare("2, second order", 2 * net(x) * x.square().sum(1) / norms.square(), e["curvature"])
            for name, relu in (("3", False), ("4", True)):
                net = layered((size, *draw.integers(4, 17, depth).tolist(), 1), relu).double()
                compare(name, layer_terms(net, x).sum(1).sqrt(), expand(net, x, y, [1.0])["norm"])
    return found


# How C12 is judged.

ROUNDING, EXACT = 1e-12, 1e-9  # what is left of a formula's difference, and of LSAM's first order


def checks(
    difference: float, inexact: float, errors: Mapping[str, Mapping[str, np.ndarray]], tolerance: float
) -> list[Check]:
    """C12's checks: the closed forms' largest `difference` and LSAM's largest error, which are identities and count for
    nothing; and for each of the cases that `errors` words, kind of net -> typical errors (nets,): all are below the
    tolerance. The first case is the main check."""
    formulas = f"Examples 1 to 4, automatic differentiation: difference below 1e-12 (largest: {difference:.0e})"
    first_order = f"LSAM, exponential loss: largest error below 1e-9 (largest: {inexact:.0e})"
    found = [exact(formulas, difference < ROUNDING, trivial=True), exact(first_order, inexact < EXACT, trivial=True)]
    for case, nets in errors.items():
        what = f"{case} below {100 * tolerance:g} % for {', '.join(nets)}"
        found.append(
            compared(what, list(map(estimate, nets.values())), high=tolerance, main=case == next(iter(errors)))
        )
    return found


# Figures.

PALE = "#ECEEF0"
COLOURS = {"exponential": "#22272E", "logistic": "#CC79A7"}  # the second is Okabe and Ito's reddish purple
ALONE, WORST, OTHERS = "#C9CDD1", "#C2478B", "#4A5662"
FIRST_ORDER, LOG_RATIO = r"$\rho\,\Vert\nabla f\Vert$", r"$\log(\tilde\lambda/\lambda)$"
Surveys = Mapping[str, pd.DataFrame]  # a panel each


def log_ratio_scatter(surveys: Surveys, radii: Sequence[float], nets: int = 6) -> Figure:
    """The claim as it stands: log ratio (exponential loss) against rho ||grad f||; a point an example."""
    fig, axes = plt.subplots(1, len(surveys), figsize=(style.PAGE_WIDTH, 2.3), sharex=True, sharey=True)
    limits, colours = (2e-3, 4e2), dict(zip(radii, style.sequence(len(radii))))
    for panel, (name, e) in zip(axes, surveys.items()):
        panel.axline((1, 1), (2, 2), color=style.GREY, linewidth=0.8, zorder=1)
        for radius, one in e.query("net < @nets and rho in @radii and exponential > 0").groupby("rho"):
            look = {"s": 5, "color": colours[radius], "linewidths": 0, "label": rf"$\rho={radius:g}$"}
            panel.scatter("first", "exponential", data=one, **look)
        panel.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal", xlabel=FIRST_ORDER)
        panel.set_title(name, fontsize=9)
        style.plain(panel.xaxis, panel.yaxis, ticks=[0.01, 0.1, 1, 10, 100])
    axes[0].set_ylabel(LOG_RATIO)
    axes[0].legend(loc="upper left", fontsize=7.5, handletextpad=0, borderpad=0, markerscale=2.2, labelspacing=0.25)
    return fig


def orders(surveys: Surveys, tolerance: float) -> Figure:
    """The log ratio as a part of its first order, with what first and second order together predict (dashed). Lines are
    medians over all examples of all nets, bands the 10th to the 90th percentile."""
    fig, axes = plt.subplots(1, len(surveys), figsize=(style.PAGE_WIDTH, 2.4), sharex=True, sharey=True)
    looks = {loss: {"color": COLOURS[loss], "linewidth": 1.7, "label": f"{loss} loss"} for loss in LOSSES[::-1]}
    looks["both"] = {"color": style.SAM, "linestyle": (0, (4, 2)), "linewidth": 1.2, "label": "both orders"}
    for panel, (name, e) in zip(axes, surveys.items()):
        panel.axhspan(1 - tolerance, 1 + tolerance, color=PALE, zorder=0)
        parts = e.assign(both=e["first"] + e["second"])[[*looks]].div(e["first"], axis=0).groupby("rho")
        low, middle, high = (parts.quantile(level) for level in (0.1, 0.5, 0.9))
        for what, look in looks.items():
            panel.plot(middle[what], **look)
            if what in LOSSES:
                style.band(panel, low.index, low[what], high[what], COLOURS[what], alpha=0.16)
        panel.set(xscale="log", xlabel=r"radius $\rho$", ylim=(0, 1.22))
        panel.set_title(name, fontsize=9)
        panel.xaxis.set_major_locator(LogLocator(numticks=5))
        style.plain(panel.xaxis)
    axes[0].set_ylabel(r"$\log(\tilde\lambda/\lambda)\;/\;\rho\,\Vert\nabla f\Vert$")
    axes[0].legend(loc="lower left", fontsize=7.5, handlelength=1.6, borderpad=0.1, labelspacing=0.3)
    return fig


def logistic_limits(
    examples: Surveys, fractions: Sequence[float], errors: Mapping[float, np.ndarray], tolerance: float
) -> Figure:
    """Left, the logistic loss's error by margin and shift, with examples (each a survey at one radius). Right, an error
    while LSAM trains: errors[rho] is (checkpoints, seeds), at `fractions` of training."""
    fig, (plane, time) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.5), width_ratios=[1.12, 1])
    grid = np.geomspace(0.1, 200, 240)
    error = np.maximum(logistic_error(*np.meshgrid(grid, grid)), 0)  # rounding may leave it just below
    plane.contourf(grid, grid, error, levels=[0, *np.geomspace(tolerance / 10, 1, 8)], cmap="Greys", vmax=2)
    plane.contour(grid, grid, error, levels=[tolerance], colors="black", linewidths=1.4)
    plane.plot(grid, grid, color="white", linewidth=1, linestyle=(0, (4, 2)))
    for (name, e), colour, marker in zip(examples.items(), (style.EASY, style.LSAM, style.SAM), "o^s"):
        look = {"s": 9, "color": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.25}
        plane.scatter("margin", "shift", data=e, label=name, **look)
    for x, y, text in ((40, 0.14, f"error below {100 * tolerance:g} %"), (0.55, 9, "saturated")):
        plane.text(x, y, text, ha="center", fontsize=8)
    plane.set(xscale="log", yscale="log", xlim=(0.1, 200), ylim=(0.1, 200), xlabel=r"margin $m = yf$ at $w$")
    plane.set(ylabel=r"shift of the margin, $m(w)-m(\tilde w)$", title="margin and shift decide")
    style.plain(plane.xaxis, plane.yaxis)
    frame = {"frameon": True, "facecolor": "white", "framealpha": 0.9, "edgecolor": "none"}
    plane.legend(loc="upper left", fontsize=7.5, handletextpad=0.1, borderpad=0.3, markerscale=1.4, **frame)
    time.axhspan(0, tolerance, color=PALE, zorder=0)
    style.lines(time, fractions, {rf"$\rho = {radius:g}$": values for radius, values in errors.items()})
    time.set(xscale="log", xlabel="part of training", ylabel="median error", ylim=(0, 0.6))
    time.set_title("LSAM on the toy, while it trains", fontsize=9)
    for axis in (time.xaxis, time.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    time.legend(loc="upper right")
    return fig


def batches(alone: Surveys, together: Surveys, batch_size: int) -> Figure:
    """Log ratio (logistic loss) in batches by rho ||grad f|| (above) and rho times the projection (below), of surveys
    at one radius each; `alone` are the same with batches of one."""
    fig, axes = plt.subplots(2, len(together), figsize=(style.PAGE_WIDTH, 4.6))
    for (upper, lower), (name, e) in zip(axes.T, together.items()):
        upper.scatter(
            "first", "logistic", data=alone[name], s=3, color=ALONE, label="alone: a batch of one", linewidths=0
        )
        e, worst = e.assign(norm=alone[name]["first"]), worst_fitted(e, batch_size)
        top = e["norm"].quantile(0.98)
        low = 1.1 * min(e["logistic"].quantile(0.02), 0) - 0.05 * top
        dots = {f"worst-fitted of its batch of {batch_size}": (worst, WORST, 8), "the others": (~worst, OTHERS, 5)}
        for panel, x, left in ((upper, "norm", -0.03 * top), (lower, "first", low)):
            for label, (chosen, colour, size) in reversed(dots.items()):
                panel.scatter(x, "logistic", data=e[chosen], s=size, c=colour, label=label, linewidths=0, alpha=0.75)
            panel.axline((0, 0), slope=1, color=style.GREY, linewidth=0.8, zorder=0)
            panel.axhline(0, color="#D5D8DB", linewidth=0.7, zorder=0)
            panel.set(xlim=(left, 1.06 * top), ylim=(low, 1.08 * top))
            panel.locator_params(nbins=4)
        upper.set_title(name, fontsize=9)
        upper.set_xlabel(FIRST_ORDER)
        lower.set_xlabel(r"$\rho\,\langle -y\nabla f, d\rangle$")
    plt.setp(axes[:, 0], ylabel=LOG_RATIO)
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.1, markerscale=1.6)
    return fig
