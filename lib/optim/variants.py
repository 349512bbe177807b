"""Every method by its name: what builds the optimizer of a model at a radius, and takes its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from lib.optim.ascent import ASAM, DecayedSAM, FriendlySAM
from lib.optim.descent import GSAM, LookSAM
from lib.optim.esam import ESAM
from lib.optim.sam import LSAM, SAM

Settings = Mapping[str, Any]  # the base optimizer's: lr, momentum, weight_decay
Loss = Callable[..., Tensor]
Builder = Callable[[nn.Module, float, Settings], Optimizer]


def _around_sgd(variant: type[SAM]) -> Builder:
    return lambda model, rho, settings: variant(model.parameters(), rho=rho, model=model, **settings)


def _decay_inside(model: nn.Module, rho: float, settings: Settings) -> Optimizer:
    decay = settings.get("weight_decay", 0.0)
    return DecayedSAM(model.parameters(), rho=rho, decay=decay, model=model, **_without(settings, "weight_decay"))


def _sam_adam(model: nn.Module, rho: float, settings: Settings) -> Optimizer:
    return SAM(model.parameters(), Adam, rho, model=model, **_without(settings, "momentum"))


def _without(settings: Settings, left_out: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != left_out}


# The one table of methods: name, display name, optimizer. Image trials, and every comparison and the cost table of the
# variants' chapter, take what is listed here. Weight decay is the base optimizer's affair (outside the ascent) but for
# "sam_decay_inside".
_TABLE: dict[str, tuple[str, Builder]] = {
    "sgd": ("SGD", lambda model, rho, settings: SGD(model.parameters(), **settings)),
    "sam": ("SAM", _around_sgd(SAM)),
    "lsam": ("LSAM", lambda model, rho, settings: LSAM(model, rho=rho, **settings)),
    "asam": ("ASAM", _around_sgd(ASAM)),
    "gsam": ("GSAM", _around_sgd(GSAM)),
    "esam": ("ESAM", _around_sgd(ESAM)),
    "looksam": ("LookSAM", _around_sgd(LookSAM)),
    "friendly": ("Friendly SAM", _around_sgd(FriendlySAM)),
    "sam_decay_inside": ("SAM, decay inside", _decay_inside),
    "adam": ("Adam", lambda model, rho, settings: Adam(model.parameters(), **_without(settings, "momentum"))),
    "sam_adam": ("SAM around Adam", _sam_adam),
}
TITLES = {name: title for name, (title, _) in _TABLE.items()}
VARIANTS = {name: build for name, (_, build) in _TABLE.items()}
WITHOUT_RADIUS = ("sgd", "adam")  # methods that have no rho: it is 0


def take_step(
    model: nn.Module, optimizer: Optimizer, inputs: Tensor, labels: Tensor, loss: Loss = F.cross_entropy
) -> Tensor:
    """One update on one batch; returns the mean loss at the parameters before it.

    loss: of logits and labels, with `reduction` as torch's losses have it.
    """
    if isinstance(optimizer, LSAM):
        return optimizer.step_fused(inputs, lambda logits: loss(logits, labels))
    if isinstance(optimizer, ESAM):
        return optimizer.step(lambda which: loss(model(inputs[which]), labels[which], reduction="none"))

    def closure() -> Any:
        optimizer.zero_grad()
        mean = loss(model(inputs), labels)
        mean.backward()
        return mean

    return cast(Tensor, optimizer.step(closure))
