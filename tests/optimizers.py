"""What the tests of `lib.optim` share: nets, batches, every optimizer by its kind, and its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from lib.models import FeatureNet
from lib.optim import ESAM, LSAM, SAM, VARIANTS, WITHOUT_RADIUS

NAMES = [name for name in VARIANTS if name not in WITHOUT_RADIUS]
KINDS = [*NAMES, "lsam fused"]
SCALED = [kind for kind in KINDS if kind != "friendly"]  # it refuses a scaler
MOMENTUM = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}


class Head(nn.Linear):
    """A last layer in which evaluation number `at` (of those that ask for a gradient) can be made to fail."""

    at, how, calls = 0, "", 0

    def forward(self, phi: Tensor) -> Tensor:
        out = super().forward(phi)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.at and self.how == "error":
                torch.rand(1)
                raise ArithmeticError("an evaluation failed")
            if self.calls == self.at and self.how == "overflow":
                out.register_hook(lambda gradient: gradient * torch.inf)
        return out

    def fail(self, at: int, how: str) -> None:
        self.at, self.how, self.calls = at, how, 0


class Net(FeatureNet):
    """A body with batch norm, or another part, and a head: (n, 6) to logits (n, 3)."""

    def __init__(self, part: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), part or nn.BatchNorm1d(8), nn.ReLU())
        self.head = Head(8, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


def net(part: Callable[[], nn.Module] | None = None, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(part() if part else None)


def dropping() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5))


# The classes of these names that take parameters; LSAM takes a model.
CLASSES = {type(VARIANTS[name](net(), 0.1, {"lr": 0.1})): name for name in reversed(NAMES) if name != "lsam"}
CLASSES = {name: variant for variant, name in CLASSES.items()}


def batches(count: int, n: int = 10) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 6, generator=draw), torch.randint(3, (n,), generator=draw)) for _ in range(count)]


def build(kind: str, model: nn.Module, rho: float = 0.5, base: type[Optimizer] = SGD, **others) -> SAM:
    """The optimizer of this kind around SGD, or the same class around another base."""
    name = kind.split()[0]
    if base is SGD:
        return VARIANTS[name](model, rho, MOMENTUM | others)
    others = {"lr": 0.01} | others
    if name == "lsam":
        return LSAM(model, base, rho, **others)
    return CLASSES.get(name, SAM)(model.parameters(), base, rho, model=model, **others)


def advance(kind: str, optimizer: SAM, model: nn.Module, batch: tuple[Tensor, Tensor], scaler=None) -> Tensor:
    """A step by the closure that the optimizer takes."""
    x, y = batch
    if kind == "lsam fused":
        return optimizer.step_fused(x, partial(F.cross_entropy, target=y), scaler)
    if isinstance(optimizer, ESAM):
        return optimizer.step(lambda which: F.cross_entropy(model(x[which]), y[which], reduction="none"), scaler)

    def closure() -> Tensor:
        loss = F.cross_entropy(model(x), y)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    return optimizer.step(closure, scaler)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def everything(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second))


def assert_close(first: nn.Module, second: nn.Module, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    for p, q in zip(first.parameters(), second.parameters()):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol)


@contextmanager
def one_process() -> Iterator[None]:
    """This process alone as a group of processes."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
