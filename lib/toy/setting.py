"""How one toy net is trained: SGD, LSAM, and the interventions (8) to (10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lib import check
from lib.data.toy import ToyConstants

FACTORS = ("real", "phantom", "fixed", "constant")
CHOICES = {
    "importance": FACTORS,
    "effective": FACTORS,
    "head_importance": FACTORS,
    "anchor": ("easy", "hard", "norm"),
    "average": ("unbiased", "scaled", "biased"),
    "displaced": ("both", "easy", "hard"),
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What every kind of setting has: the data, the two nets and their start, and the steps.

    gain, bias: factors on the nets' initial weights (PyTorch's default: 1) and, besides, on their biases; with bias
    None the layers have none. Raises ValueError for a value that is not allowed.
    """

    data: ToyConstants = field(default_factory=ToyConstants)
    width: int = 64
    learning_rate: float = 0.05
    epochs: int = 200
    batch_size: int = 5
    head: tuple[float, float] = (1.0, 1.0)  # (w_e, w_h) at the start
    gain: float = 1.0
    bias: float | None = 1.0

    def __post_init__(self) -> None:
        for name in ("rho", "learning_rate", "gain"):
            check.number(name, getattr(self, name), 0)
        if self.bias is not None:
            check.number("bias", self.bias, 0)
        for name in ("width", "epochs", "batch_size"):
            check.whole(name, getattr(self, name), 1)
        object.__setattr__(self, "head", check.pair("head", self.head))

    @property
    def steps(self) -> int:
        """Updates in the whole of training."""
        return self.epochs * -(-self.data.training_points // self.batch_size)


@dataclass(frozen=True)
class ToySetting(Training):
    """How one toy net is trained: SGD on L(F), F = w_e f_e + w_h f_h (equation (4)), with the gradient of equation (6),

        -y * lambda(importance head) * (g_e grad f_e + g_h grad f_h),   g the effective head,

    each head "real" (w), "phantom" (w~, equation (5)), "fixed" (of ratio `ratio`, equation (7)) or "constant"
    ((r_e w_e, r_h w_h) with r = `rates`). The head's own gradient is -y * lambda * f with the importance weight of
    `head_importance` (default: that of `importance`). `anchor` says what of w is held where the ratio is fixed: w_e, as
    in (7), w_h, or the norm.

    The phantom may be taken in part, and of other points: `displaced` leaves one of w's entries where it is;
    `phantom_points` and `phantom_shift` are how many points it is computed from and how many batches ahead of the
    batch's first they begin, in the epoch's order and from its end on to its beginning. Over a `memory` of more than
    one batch w~ - w is an exponential mean from zero: "unbiased", divided as Adam divides it; "scaled", made rho long;
    or "biased", as it is, which is shorter than rho and at first near zero, so that it delays LSAM.

    `ascent` is the window, in epochs or parts of one, outside which each step is SGD's.

    The importance weight is that of the loss: lambda = sigma(-m) - `smoothing` / 2 - `decoupling` m at the margin m =
    y F, of label smoothing (a share `smoothing` of each label is spread over both), and of spectral decoupling
    (Pezeshki et al. 2021: `decoupling` / 2 times F squared is added).

    The defaults that the text states: batch 5, no momentum, no weight decay. Width, learning rate, epochs and head are
    ours.
    """

    rho: float = 0.0
    importance: str = "phantom"
    effective: str = "phantom"
    ratio: float = 1.0  # c of equations (7)-(10)
    memory: int = 1  # batches over which w~ - w is averaged; 1: equation (5)
    head_importance: str | None = None
    anchor: str = "easy"
    average: str = "unbiased"
    displaced: str = "both"
    rates: tuple[float, float] = (1.0, 1.0)  # (r_e, r_h) of a "constant" head
    phantom_points: int | None = None  # None: as many as in a batch
    phantom_shift: int = 0
    ascent: tuple[float, float] | None = None  # from the first epoch to before the second; None: all of training
    smoothing: float = 0.0
    decoupling: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if name != "head_importance" or self.head_importance is not None:
                check.choice(name, getattr(self, name), choices)
        check.number("ratio", self.ratio, 0, above=True)
        check.number("decoupling", self.decoupling, 0)
        check.number("smoothing", self.smoothing, 0, 1)
        check.whole("memory", self.memory, 1)
        check.whole("phantom_shift", self.phantom_shift)
        if self.phantom_points is not None:
            check.whole("phantom_points", self.phantom_points, 1, self.data.training_points)
        super().__post_init__()
        object.__setattr__(self, "rates", check.pair("rates", self.rates))
        if self.ascent is not None:
            object.__setattr__(self, "ascent", check.pair("ascent", self.ascent, 0, self.epochs, rising=True))

    @property
    def window(self) -> tuple[int, int]:
        """The steps of `ascent`, from the first to before the second."""
        first, last = self.ascent or (0, self.epochs)
        return round(first * self.steps / self.epochs), round(last * self.steps / self.epochs)


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


def check_settings(settings: Sequence[Any], kinds: Sequence[type]) -> None:
    """Raises ValueError where there is no setting, or one that is not of the first one's kind, one of `kinds`."""
    kind = type(settings[0]) if settings else None
    if kind not in kinds or any(type(setting) is not kind for setting in settings):
        names = " or of ".join(one.__name__ for one in kinds)
        raise ValueError(f"settings must be one or more, all of {names}, not {settings!r}")
