"""How one toy net is trained: SGD, LSAM, and the interventions (8) to (10)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lib import check
from lib.data.toy import ToyConstants

S = TypeVar("S")
FACTORS = ("real", "phantom", "fixed")
ANCHORS = ("easy", "hard", "norm")


@dataclass(frozen=True)
class ToySetting:
    """How one toy net is trained: SGD on L(F), F = w_e f_e + w_h f_h (equation (4)), with the gradient of equation (6),

        -y * lambda(importance head) * (g_e grad f_e + g_h grad f_h),   g the effective head,

    each head "real" (w), "phantom" (w~, equation (5)) or "fixed" (of ratio `ratio`, equation (7)). The head's own
    gradient is -y * lambda * f with the importance weight of `head_importance` (default: that of `importance`).
    `anchor` says what of w is held where the ratio is fixed: w_e, as in (7), w_h, or the norm.

    The defaults that the text states: batch 5, no momentum, no weight decay. Width, learning rate, epochs and head are
    ours.
    """

    rho: float = 0.0
    importance: str = "phantom"
    effective: str = "phantom"
    ratio: float = 1.0  # c of equations (7)-(10)
    memory: int = 1  # batches over which w~ - w is averaged (exponentially); 1: equation (5)
    head_importance: str | None = None
    anchor: str = "easy"
    data: ToyConstants = field(default_factory=ToyConstants)
    width: int = 64
    learning_rate: float = 0.05
    epochs: int = 200
    batch_size: int = 5
    head: tuple[float, float] = (1.0, 1.0)  # (w_e, w_h) at the start

    def __post_init__(self) -> None:
        for name, choices in {"importance": FACTORS, "effective": FACTORS, "anchor": ANCHORS}.items():
            check.choice(name, getattr(self, name), choices)
        if self.head_importance is not None:
            check.choice("head_importance", self.head_importance, FACTORS)
        check.number("ratio", self.ratio, 0, above=True)
        check_shared(self, whole=("memory",))

    @property
    def steps(self) -> int:
        """Updates in the whole of training."""
        return self.epochs * -(-self.data.training_points // self.batch_size)


def sgd(**others) -> ToySetting:
    """Plain SGD, equation (2)."""
    return ToySetting(rho=0.0, importance="real", effective="real", **others)


def lsam(rho: float, **others) -> ToySetting:
    """LSAM at radius `rho`, equation (5)."""
    return ToySetting(rho=rho, **others)


def intervention(effect: str, ratio: float, **others) -> ToySetting:
    """SGD with the ratio fixed at `ratio` in the term of one `effect`: "importance" (8), "learning_rate" (9) or "both"
    (10)."""
    fixed = {"importance": ("fixed", "real"), "learning_rate": ("real", "fixed"), "both": ("fixed", "fixed")}
    importance, effective = fixed[check.choice("effect", effect, fixed)]
    return ToySetting(importance=importance, effective=effective, ratio=ratio, **others)


def check_shared(setting: Any, numbers: Sequence[str] = (), whole: Sequence[str] = ()) -> None:
    """Check what every kind of setting has, and further `numbers` of at least 0 and `whole` ones of at least 1.

    Raises ValueError for a value that is not allowed.
    """
    for name in ("rho", "learning_rate", *numbers):
        check.number(name, getattr(setting, name), 0)
    for name in ("width", "epochs", "batch_size", *whole):
        check.whole(name, getattr(setting, name), 1)
    if len(setting.head) != 2 or not all(map(math.isfinite, setting.head)):
        raise ValueError(f"head must be two finite numbers (w_e, w_h), not {setting.head!r}")


def check_trained(settings: Iterable[S], kind: type[S], seeds: Iterable[int]) -> tuple[tuple[S, ...], tuple[int, ...]]:
    """What is to be trained, as tuples. Raises ValueError where a setting is not of its `kind`, or a seed is negative,
    or there is none."""
    settings, seeds = tuple(settings), tuple(int(seed) for seed in seeds)
    if not settings or not all(isinstance(setting, kind) for setting in settings):
        raise ValueError(f"settings must be one {kind.__name__} or more, not {settings!r}")
    if not seeds or min(seeds) < 0:
        raise ValueError(f"seeds must be one whole number or more, none negative, not {seeds!r}")
    return settings, seeds
