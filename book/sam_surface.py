"""A loss surface one can see, that of the least net with a last layer, logit(x) = w theta x; and walks on it.

theta is the body, theta x the feature phi, and w the last layer: Example 2 of Appendix D in one dimension.
The loss depends on the product only, so its minima form the hyperbola w theta = const, along which the
sharpness varies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.models import FeatureNet
from lib.optim import LSAM, SAM

METHODS = ("SGD", "SAM", "LSAM")


@dataclass(frozen=True)
class SurfaceConstants:
    """The problem behind the picture, all of it chosen here."""

    points: int = 200  # x ~ N(y, 1), y = -1 or +1: the classes overlap, so the loss has a finite minimum
    batch_size: int = 20
    learning_rate: float = 0.2
    start: tuple[float, float] = (3.0, 0.3)  # (theta, w): a large feature and a small last layer
    data_seed: int = 0


@dataclass(frozen=True)
class Walk:
    """One run as (theta, w): `weights`, (steps + 1, 2), and each step's phantom in `phantoms`, (steps, 2)."""

    weights: np.ndarray
    phantoms: np.ndarray


class Scale(nn.Module):
    """Multiplication by one weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class ProductNet(FeatureNet):
    """logit(x) = w theta x of `x`, shape (n,); `features` is theta x and `head` multiplies by w."""

    def __init__(self, theta: float, w: float) -> None:
        super().__init__()
        self.body = Scale(theta)
        self.head = Scale(w)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


def sample(constants: SurfaceConstants) -> tuple[Tensor, Tensor]:
    """(x, y), each of shape (points,); the labels y are -1 or +1, half each."""
    draw = torch.Generator().manual_seed(constants.data_seed)
    y = torch.ones(constants.points)
    y[::2] = -1
    return y + torch.randn(constants.points, generator=draw), y


def loss(theta: np.ndarray, w: np.ndarray, constants: SurfaceConstants) -> np.ndarray:
    """Mean logistic loss over all points, at (theta, w) broadcast together."""
    margin = _margins(constants)
    return np.logaddexp(0, -np.multiply(theta, w)[..., None] * margin).mean(-1)


def gradient(weights: np.ndarray, constants: SurfaceConstants) -> np.ndarray:
    """The loss's gradient at `weights`, both of shape (..., 2), as (theta, w)."""
    slope, _ = _derivatives(weights, constants)
    return slope[..., None] * weights[..., ::-1]


def sharpness(weights: np.ndarray, constants: SurfaceConstants) -> np.ndarray:
    """Largest eigenvalue of the loss's Hessian at `weights`, shape (..., 2) as (theta, w)."""
    slope, curvature = _derivatives(weights, constants)
    theta, w = weights[..., 0], weights[..., 1]
    mixed = curvature * theta * w + slope
    hessian = np.stack([curvature * w**2, mixed, mixed, curvature * theta**2], axis=-1)
    return np.linalg.eigvalsh(hessian.reshape(*theta.shape, 2, 2))[..., -1]


def valley(constants: SurfaceConstants) -> float:
    """The product w theta at which the loss is least."""
    low, high = 0.0, 10.0
    for _ in range(60):  # bisection: the loss is convex in the product
        middle = (low + high) / 2
        slope, _ = _derivatives(np.array([middle, 1.0]), constants)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return (low + high) / 2


def _margins(constants: SurfaceConstants) -> np.ndarray:
    """y x of every point, shape (points,)."""
    x, y = sample(constants)
    return (x * y).numpy().astype(float)


def _derivatives(weights: np.ndarray, constants: SurfaceConstants) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative of the loss by the product w theta, at `weights`, shape (..., 2)."""
    margin = _margins(constants)
    importance = 1 / (1 + np.exp(weights.prod(-1)[..., None] * margin))
    return -(importance * margin).mean(-1), (importance * (1 - importance) * margin**2).mean(-1)


def walk(method: str, rho: float, steps: int, seed: int, constants: SurfaceConstants = SurfaceConstants()) -> Walk:
    """`steps` steps of one of `METHODS` from the common start; `seed` draws the batches, the same for every
    method.

    Raises ValueError for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    model = ProductNet(*constants.start)
    if method == "LSAM":
        optimizer = LSAM(model, rho=rho, lr=constants.learning_rate)
    else:
        optimizer = SAM(model.parameters(), rho=rho if method == "SAM" else 0.0, lr=constants.learning_rate)
    x, y = sample(constants)
    draw = torch.Generator().manual_seed(seed)
    weights, phantoms = [], []
    for _ in range(steps):
        batch = torch.randint(constants.points, (constants.batch_size,), generator=draw)
        visited: list[list[float]] = []

        def closure() -> Tensor:
            visited.append([p.item() for p in model.parameters()])
            value = F.softplus(-y[batch] * model(x[batch])).mean()
            value.backward()
            return value

        optimizer.step(closure)
        weights.append(visited[0])
        phantoms.append(visited[-1])
    weights.append([p.item() for p in model.parameters()])
    return Walk(np.array(weights), np.array(phantoms))


def walks(
    method: str, rho: float, steps: int, seeds: int, constants: SurfaceConstants = SurfaceConstants()
) -> np.ndarray:
    """The weights of walks with seeds 0, 1, ...: shape (seeds, steps + 1, 2)."""
    return np.stack([walk(method, rho, steps, seed, constants).weights for seed in range(seeds)])
