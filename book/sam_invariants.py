"""What holds in every step of SAM and LSAM, measured on a small conv net with batch norm (chapter 01_sam)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from lib.device import threads
from lib.models import FeatureNet
from lib.optim import LSAM, SAM

STEPS, IMAGES, CLASSES = 10, 16, 3
BASE = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Invariants:
    """Largest absolute deviations over ten steps of one method; a deviation of nothing at all is 0."""

    distance: float  # of ||w~ - w|| from rho, as a fraction of rho
    restoration: float  # of the weights after a step of learning rate 0 from those before
    rho_zero: float  # of weights, batch-norm buffers and momentum at rho = 0 from those of torch.optim.SGD
    resumed: float  # of the same in a run that was saved, loaded and went on, from a run without a break
    batch_norm_steps: int  # steps that batch norm has counted, of ten
    fused: float | None  # of LSAM's fused steps from steps that evaluate twice; None for SAM


class BatchNormNet(FeatureNet):
    """Images (n, 1, 16, 16) to logits: a convolution, batch norm, ReLU, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8 * 8 * 8, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


@threads(1)  # on so small a net more would only wait for each other
def measure(method: str, rho: float, seed: int = 0) -> Invariants:
    """The invariants of ``"SAM"`` or ``"LSAM"`` (fused), radius `rho`, on noise images drawn by `seed`."""
    torch.manual_seed(seed)
    start = BatchNormNet()
    data = [(torch.randn(IMAGES, 1, 16, 16), torch.randint(CLASSES, (IMAGES,))) for _ in range(STEPS)]

    model, optimizer = _fresh(start, method, rho)
    norms = []
    for batch in data:
        _steps(model, optimizer, [batch])
        norms.append(optimizer.phantom_norm)

    still, idle = _fresh(start, method, rho, lr=0.0)
    _steps(still, idle, data)

    same, zero = _fresh(start, method, 0.0)
    _steps(same, zero, data)
    plain = copy.deepcopy(start)
    base = SGD(plain.parameters(), **BASE)
    for batch in data:
        base.zero_grad()
        _loss(plain, batch).backward()
        base.step()

    first, half = _fresh(start, method, rho)
    _steps(first, half, data[: STEPS // 2])
    resumed, rest = _fresh(BatchNormNet(), method, rho)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    rest.load_state_dict(copy.deepcopy(half.state_dict()))
    _steps(resumed, rest, data[STEPS // 2 :])

    fused = None
    if method == "LSAM":
        twice, unfused = _fresh(start, method, rho)
        for batch in data:
            unfused.step(partial(_evaluate, twice, batch))
        fused = _difference(model.parameters(), twice.parameters())

    return Invariants(
        distance=max(abs(norm - rho) for norm in norms) / rho if rho else max(norms),
        restoration=_difference(still.parameters(), start.parameters()),
        rho_zero=_difference(_everything(same, zero), _everything(plain, base)),
        resumed=_difference(_everything(resumed, rest), _everything(model, optimizer)),
        batch_norm_steps=int(model.body[1].num_batches_tracked),
        fused=fused,
    )


def _fresh(start: nn.Module, method: str, rho: float, **settings: float) -> tuple[BatchNormNet, SAM]:
    model = copy.deepcopy(start)
    arguments = {"rho": rho, **BASE, **settings}
    return model, LSAM(model, **arguments) if method == "LSAM" else SAM(model.parameters(), **arguments)


def _steps(model: nn.Module, optimizer: SAM, data: Iterable[Batch]) -> None:
    for inputs, labels in data:
        if isinstance(optimizer, LSAM):
            optimizer.step_fused(inputs, partial(F.cross_entropy, target=labels))
        else:
            optimizer.step(partial(_evaluate, model, (inputs, labels)))


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _evaluate(model: nn.Module, batch: Batch) -> Tensor:
    loss = _loss(model, batch)
    loss.backward()
    return loss


def _everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Weights, buffers and momentum."""
    momentum = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    return [*model.state_dict().values(), *momentum]


def _difference(first: Iterable[Tensor], second: Iterable[Tensor]) -> float:
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(first, second, strict=True))
