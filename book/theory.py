"""Chapter 11, Appendix D: the importance weight at the phantom parameter, by a Taylor expansion of the logit.

For a logit f(w), a label y in {-1, +1} and a batch of one example, the ascent is -y rho grad f/||grad f|| for
any loss that falls with the margin m = y f. The margin shrinks by the `shift` m(w) - m(w~), and

    shift = rho ||grad f|| - y/2 rho^2 g'Hg/||g||^2 + ...,   g = grad f, H the Hessian of f.

With the exponential loss the shift is log(lambda~/lambda) itself; with the logistic loss it is its upper
bound. Expansions are float64 on the CPU: small radii and float precision are what is tested.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import matplotlib.pyplot as plt
import numpy as np
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
from lib.stats import estimate, rank_correlation
from lib.toy.ensemble import ToyResult, unpack

LOSSES = ("exponential", "logistic")
PERTURBED = ("head", "all")  # the parameters that the ascent moves: LSAM's and SAM's


def last_layer_norms(phi: Tensor, outputs: int = 1, bias: bool = False) -> Tensor:
    """Example 1, LSAM: ||grad_w f||, shape (n,), of features (n, d): ||phi(x)|| for one output without bias.

    A net with two `outputs` has f = output 1 - output 0 and so a norm that is sqrt(2) times as large; a
    `bias` is one more feature, always 1.
    """
    return torch.sqrt(outputs * (phi.square().sum(1) + bias))


def two_layer_norms(first: Tensor, last: Tensor, x: Tensor) -> Tensor:
    """Example 2, f = v'Wx: sqrt(||Wx||^2 + ||v||^2 ||x||^2), shape (n,), of W (h, d), v (h,) and x (n, d)."""
    return torch.sqrt((x @ first.T).square().sum(1) + last.square().sum() * x.square().sum(1))


def two_layer_curvatures(first: Tensor, last: Tensor, x: Tensor) -> Tensor:
    """g'Hg/||g||^2 of Example 2, shape (n,): 2 f(x) ||x||^2/||grad f||^2. No further term follows."""
    return 2 * (x @ first.T @ last) * x.square().sum(1) / two_layer_norms(first, last, x).square()


def layer_terms(weights: Sequence[Tensor], x: Tensor, relu: bool) -> Tensor:
    """Examples 3 and 4: the terms ||W_L M_{L-1} ... W_{l+1} M_l||^2 ||h_{l-1}(x)||^2 of ||grad f||^2, (n, L).

    `weights` are W_1 ... W_L, each (out, in), the last one (1, in). M_l keeps the units that are active for
    an input (`relu`, Example 4) or all of them (Example 3).
    """
    hidden, masks = [x], []
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
    """log lambda of margins m = y f: -m with the exponential loss, log sigma(-m) with the logistic one.

    Raises ValueError for another loss.
    """
    check.choice("loss", loss, LOSSES)
    return -margins if loss == "exponential" else -np.logaddexp(0, margins)


def logistic_error(margin: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """By what part of `shift` the logistic log ratio stays below it, where a margin falls by `shift`."""
    return 1 - (log_weights(margin - shift, "logistic") - log_weights(margin, "logistic")) / shift


@dataclass(frozen=True)
class Expansion:
    """Of n examples, each with w moved along a unit direction d by `radii` (r,). Float64.

    `labels`, `margin` m = y f at w, `norm` ||grad f||, `slope` -y d'grad f (the norm itself where the batch
    is one example), `curvature` d'Hd: each (n,). `shift` m(w) - m(w~): (r, n).
    """

    radii: np.ndarray
    labels: np.ndarray
    margin: np.ndarray
    norm: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    shift: np.ndarray

    def at(self, radius: float) -> Self:
        """The same at one of the radii, the nearest to `radius`."""
        k = int(np.abs(self.radii - radius).argmin())
        return replace(self, radii=self.radii[k : k + 1], shift=self.shift[..., k : k + 1, :])

    def log_ratio(self, loss: str) -> np.ndarray:
        """log(lambda~/lambda), (r, n): equation (19)."""
        margin = self.margin[..., None, :]
        return log_weights(margin - self.shift, loss) - log_weights(margin, loss)

    @property
    def first_order(self) -> np.ndarray:
        """rho times the slope, (r, n): equation (23)."""
        return self.radii[:, None] * self.slope[..., None, :]

    @property
    def second_order(self) -> np.ndarray:
        """The next term of the shift, -y/2 rho^2 d'Hd, (r, n)."""
        return -0.5 * self.radii[:, None] ** 2 * (self.labels * self.curvature)[..., None, :]

    def error(self, loss: str) -> np.ndarray:
        """1 - log ratio/(rho slope), (r, n): positive where the first order promises too much."""
        return 1 - self.log_ratio(loss) / self.first_order

    def typical_error(self, radius: float, loss: str) -> np.ndarray:
        """Size of the error at one radius: median over the correctly classified examples, for each net."""
        sizes = np.abs(self.at(radius).error(loss)[..., 0, :])
        return np.nanmedian(np.where(self.margin > 0, sizes, np.nan), axis=-1)

    def typical_second_order(self, radius: float) -> np.ndarray:
        """Size of the second order as a part of the first at a radius: median over examples, for each net."""
        e = self.at(radius)
        return np.median(np.abs(e.second_order / e.first_order)[..., 0, :], axis=-1)


def expand(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    radii: Sequence[float],
    perturbed: str = "all",
    batch_size: int = 1,
    curved: bool = True,
) -> Expansion:
    """The expansion of each example of x (n, ...), labels y (n,) in {-1, +1}, around the net's weights.

    The direction is the ascent of the mean logistic loss of each batch of `batch_size` examples, in the order given;
    `perturbed` is "all" parameters (SAM) or those of the "head" (LSAM). A net with two outputs has the logit f = output
    1 - output 0. Unless `curved` the curvature, half of the work, is left out: NaN. Raises ValueError for what is not
    allowed.
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

    phantom = torch.stack([y * vmap(logit)(start + rho * direction, x) for rho in radii])
    second = vmap(curvature)(direction, x) if curved else torch.full_like(y, torch.nan)
    parts = y, margin, gradients.norm(dim=1), -y * (gradients * direction).sum(1), second, margin - phantom
    return Expansion(np.array(radii, dtype=float), *(part.numpy() for part in parts))


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


def reach(radii: np.ndarray, errors: np.ndarray, tolerance: float) -> np.ndarray:
    """The radius at which |error| first exceeds `tolerance`, (..., n), of errors (..., r, n) at rising
    radii (r,).

    Interpolated in log-log. The first radius where it is exceeded from the start, the last where it never is.
    """

    def crossing(size: np.ndarray) -> float:
        over = np.flatnonzero(size > tolerance)
        if not over.size or not over[0]:
            return radii[0 if over.size else -1]
        ends = slice(over[0] - 1, over[0] + 1)
        return np.exp(np.interp(np.log(tolerance), np.log(size[ends]), np.log(radii[ends])))

    return np.apply_along_axis(crossing, -2, np.maximum(np.abs(errors), 1e-300))


def batch_effect(alone: Expansion, together: Expansion, batch_size: int) -> dict[str, Any]:
    """What a shared perturbation does to the weights (logistic loss), by expansions (nets, n) at one radius: batches of
    one, and batches of `batch_size`.

    "correlation": Spearman's, of log ratio and gradient norm, (2, nets): alone, in the batch. "falls" (nets,): share of
    examples that lose weight in the batch; "opposite": how many of all those, over all nets, have the label opposite to
    the worst-fitted example of their batch. "spread": standard deviation of the log weights, "gini": Gini coefficient
    of the weights, both (3, nets): at w, at w~ alone, at w~ in the batch.
    """
    margins = alone.margin, alone.margin - alone.shift[:, 0], together.margin - together.shift[:, 0]
    logs = log_weights(np.stack(margins), "logistic")
    pairs = [zip(e.norm, e.log_ratio("logistic")[:, 0]) for e in (alone, together)]
    falls, labels = together.slope < 0, together.labels
    worst = labels[worst_fitted(together.margin, batch_size)].reshape(len(labels), -1)  # a label a batch
    opposite = (np.repeat(worst, batch_size, axis=1)[:, : labels.shape[1]] != labels)[falls]
    return {
        "correlation": np.array([[rank_correlation(x, y[:, None])[0] for x, y in of_nets] for of_nets in pairs]),
        "falls": falls.mean(axis=-1),
        "opposite": float(opposite.mean()) if opposite.size else 0.0,
        "spread": logs.std(axis=-1),
        "gini": gini(np.exp(logs)),
    }


def worst_fitted(margin: np.ndarray, batch_size: int) -> np.ndarray:
    """Which examples have the smallest margin of their batch, booleans (nets, n), of margins (nets, n)."""
    starts, batch = np.arange(0, margin.shape[1], batch_size), np.arange(margin.shape[1]) // batch_size
    return margin == np.minimum.reduceat(margin, starts, axis=1)[:, batch]


# The nets, untrained and trained, each with its labelled examples.


def layered(sizes: Sequence[int], relu: bool = True) -> nn.Sequential:
    """The nets of Examples 2 to 4: layers without bias, with ReLU or nothing in between, from inputs (n, sizes[0]) to
    logits (n,); the last of `sizes` is 1."""
    between = [nn.ReLU()] if relu else []
    hidden = [layer for pair in zip(sizes[:-2], sizes[1:-1]) for layer in (nn.Linear(*pair, bias=False), *between)]
    return nn.Sequential(*hidden, SingleLogit(sizes[-2]))


def matrices(net: nn.Module) -> list[Tensor]:
    """W_1 ... W_L of a layered net, detached."""
    return [weight.detach() for weight in net.parameters()]


@dataclass(frozen=True)
class Subject:
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
    for s, seed in enumerate(result.seeds):
        points = sample(result.settings[0].data, seed)
        net = ToyNet(result.settings[0].width)
        with torch.no_grad():
            for body, flat in zip((net.easy, net.hard), result.nets[0][s, checkpoint]):
                for p, part in zip(body.parameters(), unpack(flat).values()):
                    # The engine's matrices are (input, output).
                    p.copy_(torch.from_numpy(part.T.copy()).reshape(p.shape))
            net.head.weight.copy_(torch.from_numpy(result.heads[0, s, checkpoint])[None])
        subjects.append(Subject(net, torch.from_numpy(points.x), torch.from_numpy(points.y)))
    return subjects


def relu_subject(seed: int) -> Subject:
    """An untrained ReLU net of Example 4 that sees both features of the toy at once."""
    points = sample(ToyConstants(), seed)
    return Subject(_drawn(seed, layered, RELU_SIZES), torch.from_numpy(points.x), torch.from_numpy(points.y))


def conv_subject(seed: int, images: int = 200) -> Subject:
    """The untrained conv net of Section 4 and gratings, 64 by 32, level for y = +1 and upright for -1.

    Pixels have mean 0; contrast and tint vary, so that some images are easy to fit and some are not.
    """
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
    return Subject(net, subject.x, subject.y)


@threads(1)
def survey(subjects: Iterable[Subject], points: int, *given: Any, **options: Any) -> Expansion:
    """`expand` for the first `points` examples of every subject, its other arguments `given`: arrays with the nets
    as first axis."""
    each = [expand(one.net, one.x[:points], one.y[:points], *given, **options) for one in subjects]
    stacked = [np.stack([getattr(e, field.name) for e in each]) for field in fields(Expansion)[1:]]
    return Expansion(each[0].radii, *stacked)


@threads(1)
def example_differences(draws: int, seed: int = 0) -> dict[str, float]:
    """Largest difference between each closed form and automatic differentiation, by the largest value, over `draws`
    nets, each with widths, depth and ten inputs of its own. The keys begin with the example's number."""
    draw, found = np.random.default_rng(seed), {}

    def compare(name: str, closed: Tensor, reference: np.ndarray) -> None:
        difference = float(np.abs(closed.numpy() - reference).max() / np.abs(reference).max())
        found[name] = max(found.get(name, 0.0), difference)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        y, options = torch.ones(10, dtype=torch.float64), {"dtype": torch.float64}
        for _ in range(draws):
            size, hidden, depth = (int(n) for n in draw.integers((2, 4, 3), (9, 17, 7)))
            net, x = ToyNet(hidden).double(), torch.randn(10, 4, **options)
            norms = last_layer_norms(net.features(x).detach())
            compare("1, toy net", norms, expand(net, x, y, [1.0], "head").norm)
            net, x = ConvNet(2, height=8, width=8).double(), torch.randn(10, 3, 8, 8, **options)
            norms = last_layer_norms(net.features(x).detach(), outputs=2, bias=True)
            compare("1, conv net", norms, expand(net, x, y, [1.0], "head").norm)
            net, x = layered((size, hidden, 1), relu=False).double(), torch.randn(10, size, **options)
            first, last = matrices(net)
            e = expand(net, x, y, [1.0])
            compare("2", two_layer_norms(first, last[0], x), e.norm)
            compare("2, second order", two_layer_curvatures(first, last[0], x), e.curvature)
            for name, relu in (("3", False), ("4", True)):
                net = layered((size, *draw.integers(4, 17, depth).tolist(), 1), relu).double()
                compare(name, layer_terms(matrices(net), x, relu).sum(1).sqrt(), expand(net, x, y, [1.0]).norm)
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
Expansions = Mapping[str, Expansion]  # a panel each


def log_ratio_scatter(expansions: Expansions, radii: Sequence[float], nets: int = 6) -> Figure:
    """The claim as it stands: log ratio (exponential loss) against rho ||grad f||; a point an example."""
    fig, axes = plt.subplots(1, len(expansions), figsize=(style.PAGE_WIDTH, 2.3), sharex=True, sharey=True)
    limits = 2e-3, 4e2
    for panel, (name, e) in zip(axes, expansions.items()):
        panel.plot(limits, limits, color=style.GREY, linewidth=0.8, zorder=1)
        for radius, colour in zip(radii, style.sequence(len(radii))):
            one = e.at(radius)
            x, y = one.first_order[:nets].ravel(), one.log_ratio("exponential")[:nets].ravel()
            look = {"s": 5, "color": colour, "linewidths": 0, "zorder": 2, "label": rf"$\rho={radius:g}$"}
            panel.scatter(x, np.where(y > 0, y, np.nan), **look)
        panel.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal", xlabel=FIRST_ORDER)
        panel.set_title(name, fontsize=9)
        style.plain(panel.xaxis, panel.yaxis, ticks=[0.01, 0.1, 1, 10, 100])
    axes[0].set_ylabel(LOG_RATIO)
    axes[0].legend(loc="upper left", fontsize=7.5, handletextpad=0, borderpad=0, markerscale=2.2, labelspacing=0.25)
    return fig


def orders(expansions: Expansions, tolerance: float) -> Figure:
    """The log ratio as a part of its first order, with what first and second order together predict (dashed). Lines are
    medians over all examples of all nets, bands the 10th to the 90th percentile."""
    fig, axes = plt.subplots(1, len(expansions), figsize=(style.PAGE_WIDTH, 2.4), sharex=True, sharey=True)
    looks = {f"{loss} loss": {"color": COLOURS[loss], "linewidth": 1.7} for loss in LOSSES}
    looks["both orders"] = {"color": style.SAM, "linestyle": (0, (4, 2)), "linewidth": 1.2}
    for panel, (name, e) in zip(axes, expansions.items()):
        panel.axhspan(1 - tolerance, 1 + tolerance, color=PALE, zorder=0)
        for loss in LOSSES[::-1]:
            low, middle, high = np.quantile(1 - e.error(loss), [0.1, 0.5, 0.9], axis=(0, 2))
            style.band(panel, e.radii, low, high, COLOURS[loss], alpha=0.16)
            panel.plot(e.radii, middle, **looks[f"{loss} loss"])
        panel.plot(e.radii, np.median(1 + e.second_order / e.first_order, axis=(0, 2)), **looks["both orders"])
        panel.set(xscale="log", xlabel=r"radius $\rho$", ylim=(0, 1.22))
        panel.set_title(name, fontsize=9)
        panel.xaxis.set_major_locator(LogLocator(numticks=5))
        style.plain(panel.xaxis)
    axes[0].set_ylabel(r"$\log(\tilde\lambda/\lambda)\;/\;\rho\,\Vert\nabla f\Vert$")
    corner = {"loc": "lower left", "fontsize": 7.5, "handlelength": 1.6, "borderpad": 0.1, "labelspacing": 0.3}
    style.legend(axes[0], looks, **corner)
    return fig


def logistic_limits(
    examples: Expansions, fractions: Sequence[float], errors: Mapping[float, np.ndarray], tolerance: float
) -> Figure:
    """Left, the logistic loss's error by margin and shift, with examples (each an expansion at one radius).

    Right, an error while LSAM trains: errors[rho] is (checkpoints, seeds), at `fractions` of training.
    """
    fig, (plane, time) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.5), width_ratios=[1.12, 1])
    grid = np.geomspace(0.1, 200, 240)
    error = np.maximum(logistic_error(*np.meshgrid(grid, grid)), 0)  # rounding may leave it just below
    plane.contourf(grid, grid, error, levels=[0, *np.geomspace(tolerance / 10, 1, 8)], cmap="Greys", vmax=2)
    plane.contour(grid, grid, error, levels=[tolerance], colors="black", linewidths=1.4)
    plane.plot(grid, grid, color="white", linewidth=1, linestyle=(0, (4, 2)))
    for (name, e), colour, marker in zip(examples.items(), (style.EASY, style.LSAM, style.SAM), "o^s"):
        look = {"s": 9, "color": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.25}
        plane.scatter(e.margin, e.shift[:, 0], label=name, **look)
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


def batches(alone: Expansions, together: Expansions, batch_size: int) -> Figure:
    """Log ratio (logistic loss) in batches by rho ||grad f|| (above) and rho times the projection (below).

    Each net at the one radius of its expansion; `alone` is the same with batches of one.
    """
    fig, axes = plt.subplots(2, len(together), figsize=(style.PAGE_WIDTH, 4.6))
    dots = {"alone: a batch of one": ALONE, f"worst-fitted of its batch of {batch_size}": WORST, "the others": OTHERS}
    for (upper, lower), (name, e) in zip(axes.T, together.items()):
        ratio, worst, single = e.log_ratio("logistic")[:, 0], worst_fitted(e.margin, batch_size), alone[name]
        reference = single.first_order[:, 0], single.log_ratio("logistic")[:, 0]
        upper.scatter(*map(np.ravel, reference), s=3, color=ALONE, linewidths=0)
        norm, projection = e.radii[0] * e.norm, e.first_order[:, 0]
        top = np.quantile(norm, 0.98)
        low = 1.1 * min(np.quantile(ratio, 0.02), 0) - 0.05 * top
        for panel, x, left in ((upper, norm, -0.03 * top), (lower, projection, low)):
            for chosen, colour, size in ((~worst, OTHERS, 5), (worst, WORST, 8)):
                panel.scatter(x[chosen], ratio[chosen], s=size, c=colour, linewidths=0, alpha=0.75)
            panel.axline((0, 0), slope=1, color=style.GREY, linewidth=0.8, zorder=0)
            panel.axhline(0, color="#D5D8DB", linewidth=0.7, zorder=0)
            panel.set(xlim=(left, 1.06 * top), ylim=(low, 1.08 * top))
            panel.locator_params(nbins=4)
        upper.set_title(name, fontsize=9)
        upper.set_xlabel(FIRST_ORDER)
        lower.set_xlabel(r"$\rho\,\langle -y\nabla f, d\rangle$")
    plt.setp(axes[:, 0], ylabel=LOG_RATIO)
    looks = {
        label: {"color": colour, "marker": "o", "markersize": 4, "linestyle": ""} for label, colour in dots.items()
    }
    style.legend(fig, looks, loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.1)
    return fig
