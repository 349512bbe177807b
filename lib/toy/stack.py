"""A stack of toy nets, trained side by side with every layer within reach of a perturbation.

All parameters of m nets are one array theta (m, 2, size + 1): for the easy and the hard feature the flat weights of its
net (layout: `lib.toy.nets.unpack`) and then its entry of the head, w_e or w_h. Norms and products below are taken over
the last two axes, net by net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from lib.models import ToyNet
from lib.toy import stack_kernel as kernel
from lib.toy.nets import Model, features, unpack


def initial(models: Sequence[Model]) -> Tensor:
    """theta at the start: the nets that the ensemble's engines start from."""
    ends = np.array([model.setting.head for model in models], dtype=np.float32)
    return torch.from_numpy(np.concatenate([np.stack([model.start() for model in models]), ends[..., None]], axis=2))


def module(theta: Tensor) -> ToyNet:
    """The torch net of one net's theta (2, size + 1), whose memory it shares."""
    net = ToyNet(unpack(theta[:, :-1].numpy())["b1"].shape[-1])
    for body, flat in zip((net.easy, net.hard), theta[:, :-1].numpy()):
        part = {name: torch.from_numpy(values) for name, values in unpack(flat).items()}
        for layer, weight, bias in zip(body[::2], ("W1", "W2", "w3"), ("b1", "b2", "b3")):
            layer.weight = nn.Parameter(part[weight].view(len(part[weight]), -1).T)
            layer.bias = nn.Parameter(part[bias].view(-1))
    net.head.weight = nn.Parameter(theta[:, -1][None])
    return net


LARGE = 1e30
Weights = Tensor | Callable[[Tensor], Tensor] | None


def evaluate(
    theta: Tensor, x: Tensor, y: Tensor, weights: Weights = None, gradient: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Logistic losses (m, n), and the gradient, shaped as theta, of their mean.

    x (m, n, 4), y (m, n). weights: of the examples in the mean, (m, n), or what gives them from the losses.
    gradient: False leaves the backward pass out, and the gradient None.
    """
    count, points = y.shape
    rows = -(-points // kernel.BLOCK) * kernel.BLOCK  # filled up with zeros
    x = pad(x, (0, 0, 0, rows - points))
    width = unpack(theta[..., :-1].numpy())["b1"].shape[-1]
    first, second = (torch.empty(count, 2, rows, width) for _ in range(2))
    phi = torch.empty(count, 2, rows)
    arrays = [array.numpy() for array in (theta, x, first, second, phi)]
    kernel.forward(arrays[0], width, *arrays[1:])
    margins = y * (phi[..., :points] * theta[..., -1:]).sum(dim=1)
    losses = softplus(-margins)
    if not gradient:
        return losses, None
    if callable(weights):
        weights = weights(losses)
    odds = torch.exp(-margins.clamp(min=-20))  # as softplus' own derivative, which ends with float32's range
    slope = -y * odds / (1 + odds) / points
    slope = pad(slope if weights is None else weights * slope, (0, rows - points))
    found = torch.empty_like(theta)
    kernel.backward(arrays[0], width, *arrays[1:], slope.numpy(), found.numpy())
    return losses, found


def norm(vector: Tensor) -> Tensor:
    """Net by net, (m, 1, 1), float64."""
    return torch.from_numpy(kernel.norms(vector.flatten(1).numpy()))[:, None, None]


def unit(vector: Tensor, length: Tensor | float = 1.0) -> Tensor:
    """`vector` made `length` long; zero where it is zero."""
    size = norm(vector)
    factor = torch.where(size > 0, length / size, 0.0)
    # In two steps: over the size of the smallest gradients, the factor exceeds what float32 holds.
    return vector * factor.clamp(max=LARGE).float() * (factor / LARGE).clamp(min=1).float()


def orthogonal(vector: Tensor, to: Tensor) -> Tensor:
    """The part of `vector` that is orthogonal to `to`."""
    along = unit(to)
    return torch.addcmul(vector, along, -(vector * along).sum(dim=(1, 2), keepdim=True))


def mistakes(theta: Tensor, sets: np.ndarray) -> np.ndarray:
    """Which of its points each net gets wrong by sign(w_e f_e), sign(w_h f_h) and sign(F), (m, 3, n); sets (m, n, 5)
    are x and y."""
    found = []
    for net, own in zip(theta.cpu().numpy(), sets, strict=True):
        easy, hard = (own[:, 4] * net[i, -1] * features(net[i, :-1], own[:, 2 * i : 2 * i + 2]) for i in range(2))
        found.append([~(margin > 0) for margin in (easy, hard, easy + hard)])
    return np.array(found)


def errors(theta: Tensor, sets: np.ndarray) -> np.ndarray:
    """The shares (m, 3) of `mistakes`."""
    return mistakes(theta, sets).mean(axis=2)
