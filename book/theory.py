"""Appendix D: the importance weight at the phantom parameter, by a Taylor expansion of the logit.

For a logit f(w), a label y in {-1, +1} and a batch of one example, the ascent is -y rho grad f/||grad f|| for
any loss that falls with the margin m = y f. The margin shrinks by the `shift` m(w) - m(w~), and

    shift = rho ||grad f|| - y/2 rho^2 g'Hg/||g||^2 + ...,   g = grad f, H the Hessian of f.

With the exponential loss the shift is log(lambda~/lambda) itself; with the logistic loss it is its upper
bound. Everything here is float64 on the CPU: small radii and float precision are what is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lib.importance import gini
from lib.stats import rank_correlation

LOSSES = ("exponential", "logistic")
PERTURBED = ("head", "all")  # the parameters that the ascent moves: LSAM's and SAM's
Weights = dict[str, Tensor]


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
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
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

    def at(self, radius: float) -> Expansion:
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
    orders: int = 2,
) -> Expansion:
    """The expansion of each example of x (n, ...), labels y (n,) in {-1, +1}, around the net's weights.

    The direction is the ascent of the mean loss of each batch of `batch_size` examples, in the order given
    (`loss` matters from two on); `perturbed` is "all" parameters (SAM) or those of the "head" (LSAM). A net
    with two outputs has the logit f = output 1 - output 0. With `orders` 1 instead of 2 the curvature, half
    of the work, is left out: NaN. Raises ValueError for what is not allowed.
    """
    if perturbed not in PERTURBED:
        raise ValueError(f"perturbed must be one of {', '.join(PERTURBED)}, not {perturbed!r}")
    if orders not in (1, 2):
        raise ValueError(f"orders must be 1 or 2, not {orders!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
    if len(radii) == 0 or min(radii) <= 0:
        raise ValueError(f"radii must be one positive number or more, not {list(radii)!r}")
    if not bool((y.abs() == 1).all()):
        raise ValueError("y must hold labels -1 and +1 only")
    weights = {name: p.detach().double() for name, p in net.named_parameters()}
    moved = {name: p for name, p in weights.items() if perturbed == "all" or name.startswith("head.")}
    x, y = x.double(), y.double()
    logit = _logit(net, weights)
    margin = y * vmap(logit, (None, 0))(moved, x)
    gradients = vmap(grad(logit), (None, 0))(moved, x)
    weight = log_weights(margin.numpy(), loss)
    # Only ratios within a batch matter: tiny weights would underflow.
    weight -= np.repeat(np.maximum.reduceat(weight, range(0, len(y), batch_size)), batch_size)[: len(y)]
    direction = _directions(gradients, y * torch.from_numpy(np.exp(weight)), batch_size)

    def logit_at(rho: float, d: Weights, one: Tensor) -> Tensor:
        return logit({name: p + rho * d[name] for name, p in moved.items()}, one)

    def curvature(d: Weights, one: Tensor) -> Tensor:
        # A Hessian-vector product, the gradient of d'grad f, and its product with d.
        return _inner(grad(lambda p: _inner(grad(logit)(p, one), d))(moved), d)

    phantom = torch.stack([y * vmap(partial(logit_at, rho))(direction, x) for rho in radii])
    second = vmap(curvature)(direction, x) if orders == 2 else torch.full_like(y, torch.nan)
    parts = (
        y,
        margin,
        vmap(_inner)(gradients, gradients).sqrt(),
        -y * vmap(_inner)(gradients, direction),
        second,
        margin - phantom,
    )
    return Expansion(np.array(radii, dtype=float), *(part.numpy() for part in parts))


def _logit(net: nn.Module, weights: Weights) -> Callable[[Weights, Tensor], Tensor]:
    """f of one example as a function of the moved weights; the others stay."""

    def logit(moved: Weights, one: Tensor) -> Tensor:
        output = functional_call(net, {**weights, **moved}, (one[None],))[0]
        return output if output.ndim == 0 else output[1] - output[0]

    return logit


def _directions(gradients: Weights, factors: Tensor, batch_size: int) -> Weights:
    """A unit direction an example, the same within a batch: that of -sum y lambda grad f, or zero."""
    batch = torch.arange(len(factors)) // batch_size
    ascent = {}
    for name, g in gradients.items():
        zero = torch.zeros(int(batch[-1]) + 1, *g.shape[1:], dtype=g.dtype)
        ascent[name] = zero.index_add(0, batch, -_scaled(g, factors))
    length = vmap(_inner)(ascent, ascent).sqrt()
    inverse = torch.where(length > 0, 1 / length, 0)
    return {name: _scaled(a, inverse)[batch] for name, a in ascent.items()}


def _scaled(rows: Tensor, factors: Tensor) -> Tensor:
    return rows * factors.view(-1, *[1] * (rows.ndim - 1))


def _inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    return sum((a[name] * b[name]).sum() for name in a)


def reach(radii: np.ndarray, errors: np.ndarray, tolerance: float) -> np.ndarray:
    """The radius at which |error| first exceeds `tolerance`, (..., n), of errors (..., r, n) at rising
    radii (r,).

    Interpolated in log-log. The first radius where it is exceeded from the start, the last where it never is.
    """
    size = np.log(np.maximum(np.abs(errors), 1e-300))
    over = size > np.log(tolerance)
    above = np.where(over.any(-2), over.argmax(-2), len(radii) - 1)
    below = np.maximum(above - 1, 0)
    low, high = (np.take_along_axis(size, k[..., None, :], -2)[..., 0, :] for k in (below, above))
    # 1 where there is nothing to interpolate: exceeded at the first radius, or at none.
    between = (above > below) & (high > np.log(tolerance))
    part = np.divide(np.log(tolerance) - low, high - low, out=np.ones_like(low), where=between)
    return np.asarray(radii)[below] ** (1 - part) * np.asarray(radii)[above] ** part


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
    logs = np.stack([log_weights(margin, "logistic") for margin in margins])
    correlations = (_correlation(e.norm, e.log_ratio("logistic")[:, 0]) for e in (alone, together))
    falls = together.slope < 0
    opposite = (_worst_label(together, batch_size) != together.labels)[falls]
    return BatchEffect(
        *correlations,
        falls.mean(axis=-1),
        float(opposite.mean()) if opposite.size else 0.0,
        logs.std(axis=-1),
        gini(np.exp(logs)),
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's, within each row."""
    return np.array([rank_correlation(a, b[:, None])[0] for a, b in zip(x, y)])


def _worst_label(e: Expansion, batch_size: int) -> np.ndarray:
    """The label of the worst-fitted example of each example's batch, (nets, n)."""
    worst = e.labels[worst_fitted(e.margin, batch_size)].reshape(len(e.labels), -1)
    return np.repeat(worst, batch_size, axis=1)[:, : e.labels.shape[1]]


def worst_fitted(margin: np.ndarray, batch_size: int) -> np.ndarray:
    """Which examples have the smallest margin of their batch, booleans (nets, n), of margins (nets, n)."""
    worst = np.zeros(margin.shape, dtype=bool)
    for start in range(0, margin.shape[1], batch_size):
        worst[np.arange(len(margin)), start + margin[:, start : start + batch_size].argmin(axis=1)] = True
    return worst
