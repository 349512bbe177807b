"""How one toy net is trained: SGD, LSAM, and the interventions (8) to (10)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lib.data.toy import ToyConstants

FACTORS = ("real", "phantom", "fixed")
ANCHORS = ("easy", "hard", "norm")


@dataclass(frozen=True)
class ToySetting:
    """How one toy net is trained: SGD on L(F), F = w_e f_e + w_h f_h (equation (4)), with the gradient of
    equation (6),

        -y * lambda(importance head) * (g_e grad f_e + g_h grad f_h),   g the effective head,

    each head "real" (w), "phantom" (w~, equation (5)) or "fixed" (of ratio `ratio`, equation (7)). The
    head's own gradient is -y * lambda * f with the importance weight of `head_importance` (default: that of
    `importance`). `anchor` says what of w is held where the ratio is fixed: w_e, as in (7), w_h, or the
    norm.

    The defaults that the text states: batch 5, no momentum, no weight decay. Width, learning rate, epochs
    and head are ours.
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
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.head_importance not in (None, *FACTORS):
            raise ValueError(
                f"head_importance must be None or one of {', '.join(FACTORS)}, not {self.head_importance!r}"
            )
        for name, low in {"rho": 0, "learning_rate": 0}.items():
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= low):
                raise ValueError(f"{name} must be a finite number of at least {low}, not {getattr(self, name)!r}")
        if not (np.isfinite(self.ratio) and self.ratio > 0):
            raise ValueError(f"ratio must be a positive finite number, not {self.ratio!r}")
        for name in ("width", "epochs", "batch_size", "memory"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if len(self.head) != 2 or not np.all(np.isfinite(self.head)):
            raise ValueError(f"head must be two finite numbers (w_e, w_h), not {self.head!r}")

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
    """SGD with the ratio fixed at `ratio` in the term of one `effect`: "importance" (8), "learning_rate"
    (9) or "both" (10)."""
    fixed = {"importance": ("fixed", "real"), "learning_rate": ("real", "fixed"), "both": ("fixed", "fixed")}
    if effect not in fixed:
        raise ValueError(f"effect must be one of {', '.join(fixed)}, not {effect!r}")
    importance, effective = fixed[effect]
    return ToySetting(importance=importance, effective=effective, ratio=ratio, **others)
