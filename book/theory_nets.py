"""The nets on which chapter 11 tries Appendix D, untrained and trained, each with its labelled examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from book.theory import Expansion, expand, last_layer_norms, layer_terms, two_layer_curvatures, two_layer_norms
from lib.data.toy import ToyConstants, sample
from lib.device import threads
from lib.models import ConvNet, FeatureNet, SingleLogit, ToyNet
from lib.toy.ensemble import ToyResult, unpack


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


@dataclass(frozen=True)
class Fit:
    """How a net of this chapter is trained: SGD on the logistic loss (all chosen here)."""

    steps: int
    batch_size: int
    learning_rate: float
    momentum: float


RELU_SIZES, RELU_FIT = (4, 64, 64, 1), Fit(steps=300, batch_size=10, learning_rate=0.1, momentum=0.0)
CONV_FIT = Fit(steps=20, batch_size=20, learning_rate=0.05, momentum=0.9)  # the paper's rate and momentum


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LayeredNet(RELU_SIZES)
    return Subject(net, torch.from_numpy(points.x), torch.from_numpy(points.y))


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ConvNet(classes=2)
    return Subject(net, torch.from_numpy(np.clip(pixels, -0.5, 0.5)).float(), torch.from_numpy(y).float())


@threads(1)  # more gain nothing on tensors this small, and lose much on a busy machine
def fitted(subject: Subject, fit: Fit, seed: int) -> Subject:
    """The subject with a trained copy of its net; `seed` draws the batches."""
    net, draw = deepcopy(subject.net), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=fit.learning_rate, momentum=fit.momentum)
    for _ in range(fit.steps):
        batch = torch.randperm(len(subject.y), generator=draw)[: fit.batch_size]
        output = net(subject.x[batch])
        logit = output if output.ndim == 1 else output[:, 1] - output[:, 0]
        optimizer.zero_grad()
        F.softplus(-subject.y[batch] * logit).mean().backward()
        optimizer.step()
    return Subject(net, subject.x, subject.y)


@threads(1)
def survey(
    subjects: Iterable[Subject],
    points: int,
    radii: Sequence[float],
    perturbed: str,
    batch_size: int = 1,
    orders: int = 2,
) -> Expansion:
    """`expand` for the first `points` examples of every subject: arrays with the nets as first axis."""
    each = [
        expand(one.net, one.x[:points], one.y[:points], radii, perturbed, batch_size, orders=orders) for one in subjects
    ]
    stacked = [np.stack([getattr(e, field.name) for e in each]) for field in fields(Expansion)[1:]]
    return Expansion(each[0].radii, *stacked)


@threads(1)
def example_differences(draws: int, seed: int = 0) -> dict[str, float]:
    """Largest difference between each closed form and automatic differentiation, by the largest value.

    Over `draws` nets, each with widths, depth and ten inputs of its own. The keys begin with the example's
    number.
    """
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
