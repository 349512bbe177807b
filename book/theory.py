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
from matplotlib.axes import Axes
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
from lib.models import ConvNet, FeatureNet, SingleLogit, ToyNet
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
    loss: str = "logistic",
    curved: bool = True,
) -> Expansion:
    """The expansion of each example of x (n, ...), labels y (n,) in {-1, +1}, around the net's weights.

    The direction is the ascent of the mean loss of each batch of `batch_size` examples, in the order given
    (`loss` matters from two on); `perturbed` is "all" parameters (SAM) or those of the "head" (LSAM). A net
    with two outputs has the logit f = output 1 - output 0. Unless `curved` the curvature, half of the work, is
    left out: NaN. Raises ValueError for what is not allowed.
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
    weight, batch = log_weights(margin.numpy(), loss), np.arange(len(y)) // batch_size
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


@dataclass(frozen=True)
class BatchEffect:
    """What a shared perturbation does to the weights (logistic loss) of each net: arrays (nets,).

    `correlation_alone`, `correlation`: Spearman's, of log ratio and gradient norm, alone and in the batch.
    `falls`: share of examples that lose weight in the batch; `opposite`: how many of all those, over all
    nets, have the label opposite to the worst-fitted example of their batch. `spread`: standard deviation
    of the log weights; `gini`: Gini coefficient of the weights; both (3, nets): at w, at w~ alone, at w~ in
    the batch.
    """

    correlation_alone: np.ndarray
    correlation: np.ndarray
    falls: np.ndarray
    opposite: float
    spread: np.ndarray
    gini: np.ndarray


def batch_effect(alone: Expansion, together: Expansion, batch_size: int) -> BatchEffect:
    """Compares expansions (nets, n) at one radius: batches of one, and batches of `batch_size`."""
    margins = alone.margin, alone.margin - alone.shift[:, 0], together.margin - together.shift[:, 0]
    logs = log_weights(np.stack(margins), "logistic")
    pairs = ([e.norm, e.log_ratio("logistic")[:, 0]] for e in (alone, together))
    correlations = (np.array([rank_correlation(x, y[:, None])[0] for x, y in zip(*pair)]) for pair in pairs)
    falls, labels = together.slope < 0, together.labels
    worst = labels[worst_fitted(together.margin, batch_size)].reshape(len(labels), -1)  # a label a batch
    opposite = (np.repeat(worst, batch_size, axis=1)[:, : labels.shape[1]] != labels)[falls]
    share = float(opposite.mean()) if opposite.size else 0.0
    return BatchEffect(*correlations, falls.mean(axis=-1), share, logs.std(axis=-1), gini(np.exp(logs)))


def worst_fitted(margin: np.ndarray, batch_size: int) -> np.ndarray:
    """Which examples have the smallest margin of their batch, booleans (nets, n), of margins (nets, n)."""
    worst = np.zeros(margin.shape, dtype=bool)
    for start in range(0, margin.shape[1], batch_size):
        worst[np.arange(len(margin)), start + margin[:, start : start + batch_size].argmin(axis=1)] = True
    return worst


# The nets, untrained and trained, each with its labelled examples.


class LayeredNet(FeatureNet):
    """The nets of Examples 2 to 4: layers without bias, with ReLU or nothing in between.

    Takes inputs (n, sizes[0]) to logits (n,). Raises ValueError for less than one layer or several outputs.
    """

    def __init__(self, sizes: Sequence[int], relu: bool = True) -> None:
        super().__init__()
        if len(sizes) < 2 or sizes[-1] != 1 or min(sizes) < 1:
            raise ValueError(f"sizes must be two positive integers or more, the last 1, not {list(sizes)!r}")
        self.relu = relu
        self.body = nn.ModuleList(nn.Linear(*pair, bias=False) for pair in zip(sizes[:-2], sizes[1:-1]))
        self.head = SingleLogit(sizes[-2])

    def features(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = F.relu(layer(x)) if self.relu else layer(x)
        return x

    @property
    def matrices(self) -> list[Tensor]:
        """W_1 ... W_L, detached."""
        return [layer.weight.detach() for layer in (*self.body, self.head)]


@dataclass(frozen=True)
class Subject:
    """A net with labelled examples: inputs x (n, ...), labels y (n,) in {-1, +1}."""

    net: FeatureNet
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
    return Subject(_drawn(seed, LayeredNet, RELU_SIZES), torch.from_numpy(points.x), torch.from_numpy(points.y))


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


def _drawn(seed: int, kind: type[FeatureNet], *given: Any) -> FeatureNet:
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
            net, x = LayeredNet((size, hidden, 1), relu=False).double(), torch.randn(10, size, **options)
            first, last = net.matrices
            e = expand(net, x, y, [1.0])
            compare("2", two_layer_norms(first, last[0], x), e.norm)
            compare("2, second order", two_layer_curvatures(first, last[0], x), e.curvature)
            for name, relu in (("3", False), ("4", True)):
                net = LayeredNet((size, *draw.integers(4, 17, depth).tolist(), 1), relu).double()
                compare(name, layer_terms(net.matrices, x, relu).sum(1).sqrt(), expand(net, x, y, [1.0]).norm)
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

INK, PALE = "#22272E", "#ECEEF0"
COLOURS = {"exponential": INK, "logistic": "#CC79A7"}  # the second is Okabe and Ito's reddish purple
ALONE, WORST, OTHERS = "#C9CDD1", "#C2478B", "#4A5662"
MARKS = {"exponential": "o", "logistic": "D"}
Curves, Ends = Mapping[str, np.ndarray], tuple[float, float]
FIRST_ORDER, LOG_RATIO = r"$\rho\,\Vert\nabla f\Vert$", r"$\log(\tilde\lambda/\lambda)$"


def log_ratio_scatter(expansions: Mapping[str, Expansion], radii: Sequence[float], nets: int = 6) -> Figure:
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


def orders(expansions: Mapping[str, Expansion], tolerance: float) -> Figure:
    """Above, the log ratio as a part of its first order; below, what first and second order leave over.

    Lines are medians over all examples of all nets, bands the 10th to the 90th percentile.
    """
    fig, axes = plt.subplots(2, len(expansions), figsize=(style.PAGE_WIDTH, 4.3), sharex=True, sharey="row")
    ink, pink = ({"color": COLOURS[loss], "linewidth": 1.7} for loss in LOSSES)
    dashed = {"color": style.SAM, "linestyle": (0, (4, 2)), "linewidth": 1.2}
    dotted = {"color": style.LSAM, "linestyle": ":", "linewidth": 1.7}
    for (upper, lower), (name, e) in zip(axes.T, expansions.items()):
        second = e.second_order / e.first_order
        upper.axhspan(1 - tolerance, 1 + tolerance, color=PALE, zorder=0)
        for loss in LOSSES[::-1]:
            _band(upper, e.radii, 1 - e.error(loss), COLOURS[loss])
        lower.axhspan(tolerance, 9, color=PALE, zorder=0)
        _band(lower, e.radii, np.abs(e.error("exponential")), INK)
        if np.abs(second).max() > 1e-9:
            upper.plot(e.radii, _middle(1 + second), **dashed)
            lower.plot(e.radii, _middle(np.abs(second)), **dashed)
            lower.plot(e.radii, _middle(np.abs(e.shift / e.first_order - 1 - second)), **dotted)
        else:
            lower.text(0.5, 0.53, "exact", transform=lower.transAxes, ha="center", color=style.GREY)
        upper.set_title(name, fontsize=9)
        upper.set_ylim(0, 1.22)
        lower.set(xscale="log", yscale="log", xlabel=r"radius $\rho$", ylim=(1e-4, 4))
        lower.xaxis.set_major_locator(LogLocator(numticks=5))
        style.plain(lower.xaxis)
    axes[0, 0].set_ylabel(r"$\log(\tilde\lambda/\lambda)\;/\;\rho\,\Vert\nabla f\Vert$")
    axes[1, 0].set_ylabel(r"part of $\rho\,\Vert\nabla f\Vert$")
    corner = {"loc": "lower left", "fontsize": 7.5, "handlelength": 1.6, "borderpad": 0.1, "labelspacing": 0.3}
    style.legend(axes[0, 0], {"exponential loss": ink, "logistic loss": pink, "both orders": dashed}, **corner)
    below = {"first order's error": ink, "second-order term": dashed, "both orders' error": dotted}
    style.legend(axes[1, 0], below, **corner)
    return fig


def reaches(
    found: Mapping[str, Mapping[str, Curves]], limits: Ends, used: Mapping[str, Ends], tolerance: float
) -> Figure:
    """The radius where the first order is off by `tolerance`: found[net][stage][loss] is (nets, examples).

    A mark is the median over examples (geometric mean over nets), a bar the 10th to the 90th percentile of
    all examples; an arrow stands for what lies outside `limits`, the smallest and the largest radius tried.
    The ranges of radii in `used` are shaded.
    """
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 3.9))
    for (label, (low, high)), colour in zip(used.items(), (style.SAM, style.LSAM)):
        ax.axvspan(low, high, color=colour, alpha=0.10, linewidth=0, zorder=0)
        ax.text(np.sqrt(low * high), -0.62, label, ha="center", fontsize=8, color=colour)
    rows = {}  # place of a row -> its name; a gap between nets
    for k, (net, stage) in enumerate((net, stage) for net, stages in found.items() for stage in stages):
        row = k + 0.35 * list(found).index(net)
        rows[row], losses = f"{net}, {stage}", found[net][stage]
        for loss, y in zip(LOSSES, (row - 0.15, row + 0.15)):
            centre = np.exp(np.log(np.median(losses[loss], axis=-1)).mean())
            marker = "<" if centre <= 1.001 * limits[0] else ">" if centre >= limits[1] / 1.001 else MARKS[loss]
            bar, edge = {"linewidth": 2, "alpha": 0.55, "solid_capstyle": "round"}, {"mec": "white", "mew": 0.6}
            ax.plot(np.quantile(losses[loss], [0.1, 0.9]), [y, y], color=COLOURS[loss], **bar)
            ax.plot(centre, y, marker, color=COLOURS[loss], markersize=5.5, **edge)
    ax.set_yticks(*zip(*rows.items()))
    ax.set(xscale="log", xlim=(limits[0] / 1.5, limits[1] * 1.5), ylim=(max(rows) + 0.55, -1.0))
    ax.set_xlabel(rf"radius $\rho$ at which {FIRST_ORDER} is off by {100 * tolerance:g} %")
    style.plain(ax.xaxis)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    looks = {f"{loss} loss": {"color": COLOURS[loss], "marker": MARKS[loss], "markersize": 5} for loss in LOSSES}
    style.legend(fig, looks, loc="outside lower center", ncols=2, fontsize=8)
    return fig


def logistic_limits(
    examples: Mapping[str, Expansion], fractions: Sequence[float], errors: Mapping[float, np.ndarray], tolerance: float
) -> Figure:
    """Left, the logistic loss's error by margin and shift, with examples (each an expansion at one radius).

    Right, an error while LSAM trains: errors[rho] is (checkpoints, seeds), at `fractions` of training.
    """
    fig, (plane, time) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.5), width_ratios=[1.12, 1])
    grid = np.geomspace(0.1, 200, 240)
    margin, shift = np.meshgrid(grid, grid)
    error = np.maximum(logistic_error(margin, shift), 0)  # rounding may leave it just below
    levels = [0, tolerance / 10, tolerance / 3, *np.linspace(tolerance, 1, 7)]
    shades = plt.get_cmap("Greys")(np.linspace(0.02, 0.55, len(levels) - 1))
    plane.contourf(margin, shift, error, levels=levels, colors=shades)
    plane.contour(margin, shift, error, levels=[tolerance], colors=INK, linewidths=1.4)
    plane.plot(grid, grid, color="white", linewidth=1, linestyle=(0, (4, 2)))
    for (name, e), colour, marker in zip(examples.items(), (style.EASY, style.LSAM, style.SAM), "o^s"):
        kept = (e.margin > 0.1) & (e.shift[:, 0] > 0.1)
        look = {"s": 9, "color": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.25}
        plane.scatter(e.margin[kept], e.shift[:, 0][kept], label=name, **look)
    plane.text(40, 0.14, f"error below {100 * tolerance:g} %", ha="center", fontsize=8, color=INK)
    plane.text(0.55, 9, "saturated", ha="center", fontsize=8, color=INK)
    plane.set(xscale="log", yscale="log", xlim=(0.1, 200), ylim=(0.1, 200), xlabel=r"margin $m = yf$ at $w$")
    plane.set_ylabel(r"shift of the margin, $m(w)-m(\tilde w)$")
    plane.set_title("margin and shift decide", fontsize=9)
    style.plain(plane.xaxis, plane.yaxis)
    frame = {"frameon": True, "facecolor": "white", "framealpha": 0.9, "edgecolor": "none"}
    plane.legend(loc="upper left", fontsize=7.5, handletextpad=0.1, borderpad=0.3, markerscale=1.4, **frame)
    time.axhspan(0, tolerance, color=PALE, zorder=0)
    style.lines(time, fractions, {rf"$\rho = {radius:g}$": values for radius, values in errors.items()})
    time.set(xscale="log", xlabel="part of training", ylabel="median error", ylim=(0, 0.6))
    time.set_title("LSAM on the toy, while it trains", fontsize=9)
    time.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    time.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    time.legend(loc="upper right")
    return fig


def batches(alone: Mapping[str, Expansion], together: Mapping[str, Expansion], batch_size: int) -> Figure:
    """Log ratio (logistic loss) in batches by rho ||grad f|| (above) and rho times the projection (below).

    Each net at the one radius of its expansion; `alone` is the same with batches of one.
    """
    fig, axes = plt.subplots(2, len(together), figsize=(style.PAGE_WIDTH, 4.6))
    for (upper, lower), (name, e) in zip(axes.T, together.items()):
        ratio, radius = e.log_ratio("logistic")[:, 0], e.radii[0]
        worst, single = worst_fitted(e.margin, batch_size), alone[name]
        reference = single.radii[0] * single.norm, single.log_ratio("logistic")[:, 0]
        upper.scatter(*(part.ravel() for part in reference), s=3, color=ALONE, linewidths=0)
        top = np.quantile(radius * e.norm, 0.98)
        low = 1.1 * min(np.quantile(ratio, 0.02), 0) - 0.05 * top
        for panel, x, left in ((upper, e.norm, -0.03 * top), (lower, e.slope, low)):
            for chosen, colour, size in ((~worst, OTHERS, 5), (worst, WORST, 8)):
                panel.scatter(radius * x[chosen], ratio[chosen], s=size, c=colour, linewidths=0, alpha=0.75)
            panel.plot([min(low, 0), top], [min(low, 0), top], color=style.GREY, linewidth=0.8, zorder=0)
            panel.axhline(0, color="#D5D8DB", linewidth=0.7, zorder=0)
            panel.set(xlim=(left, 1.06 * top), ylim=(low, 1.08 * top))
            panel.locator_params(nbins=4)
        upper.set_title(name, fontsize=9)
        upper.set_xlabel(FIRST_ORDER)
        lower.set_xlabel(r"$\rho\,\langle -y\nabla f, d\rangle$")
    plt.setp(axes[:, 0], ylabel=LOG_RATIO)
    named = {"alone: a batch of one": ALONE, f"worst-fitted of its batch of {batch_size}": WORST, "the others": OTHERS}
    dot = {"marker": "o", "markersize": 4, "linestyle": ""}
    looks = {label: {"color": colour, **dot} for label, colour in named.items()}
    style.legend(fig, looks, loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.1)
    return fig


def _middle(values: np.ndarray) -> np.ndarray:
    """Median over nets and examples of (nets, r, n)."""
    return np.median(values, axis=(0, 2))


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, colour: str) -> None:
    style.band(ax, x, *np.quantile(values, [0.1, 0.9], axis=(0, 2)), colour, alpha=0.16)
    ax.plot(x, _middle(values), color=colour, linewidth=1.7)
