"""One interface to train any number of toy nets at once: settings x seeds, each with its own rho,
complexity, noise, intervention.

    result = train([sgd(), lsam(0.5)], seeds=range(20))
    result.error("hard")[:, :, -1]        # (settings, seeds), at the end of training

Two engines agree behind it: ``lib.toy.kernel`` (compiled, the default on the CPU) and ``lib.toy.reference``
(torch, any device). All settings of one seed share their labels and latents, the nets' initial weights and
the order of the batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from tqdm import tqdm

from lib.data.toy import SPLITS, ToyConstants, sample

FACTORS = ("real", "phantom", "fixed")
ANCHORS = ("easy", "hard", "norm")
FEATURES = ("easy", "hard", "model")
ENGINES = ("auto", "compiled", "torch")


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
                raise ValueError(
                    f"{name} must be a finite number of at least {low}, not {getattr(self, name)!r}"
                )
        if not (np.isfinite(self.ratio) and self.ratio > 0):
            raise ValueError(f"ratio must be a positive finite number, not {self.ratio!r}")
        for name in ("width", "epochs", "batch_size"):
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


@dataclass(frozen=True)
class ToyResult:
    """Records of an ensemble; axes in this order: setting, seed, checkpoint, ...

    errors: (setting, seed, checkpoint, split, feature), feature one of `FEATURES`, split one of train,
        validation, test; errors against the true attributes for "easy" and "hard" (on the clean splits),
        against the label for "model". NaN where diverged.
    heads: (setting, seed, checkpoint, 2), the real (w_e, w_h).
    diverged: (setting, seed), True where any weight is not finite at the last checkpoint.
    traces: [setting] -> (seed, step / trace_every, 4): w_e, w_h and the phantom's, before the step's
    update; or None.
    nets: [setting] -> (seed, checkpoint, 2, size), flat weights of f_e and f_h (layout: `unpack`); or None.
    """

    settings: tuple[ToySetting, ...]
    seeds: tuple[int, ...]
    checkpoints: tuple[float, ...]
    errors: np.ndarray
    heads: np.ndarray
    diverged: np.ndarray
    traces: list[np.ndarray] | None
    nets: list[np.ndarray] | None

    def error(self, feature: str, split: str = "test") -> np.ndarray:
        """(setting, seed, checkpoint): probing error of "easy" or "hard", or the "model"'s own error."""
        return self.errors[..., SPLITS.index(split), FEATURES.index(feature)]


def net_size(width: int) -> int:
    """Parameters of one of the two nets."""
    return width * width + 5 * width + 1


def unpack(net: np.ndarray) -> dict[str, np.ndarray]:
    """Views into flat weights (..., size): W1 (2, H), b1 (H), W2 (H, H), b2 (H), w3 (H), b3 (); weights as
    (input, output)."""
    width = int(round((-5 + np.sqrt(25 + 4 * (net.shape[-1] - 1))) / 2))
    lengths = {
        "W1": (2, width),
        "b1": (width,),
        "W2": (width, width),
        "b2": (width,),
        "w3": (width,),
        "b3": (),
    }
    parts, start = {}, 0
    for name, shape in lengths.items():
        stop = start + int(np.prod(shape))
        parts[name] = net[..., start:stop].reshape((*net.shape[:-1], *shape))
        start = stop
    return parts


def initial_nets(seed: int, width: int) -> np.ndarray:
    """Flat weights (2, size) at the start: PyTorch's default for linear layers, uniform within 1 /
    sqrt(inputs)."""
    generator = np.random.default_rng([seed, 0x5EED])
    nets = np.empty((2, net_size(width)), dtype=np.float32)
    for net in nets:
        for name, part in unpack(net).items():
            inputs = 2 if name in ("W1", "b1") else width
            part[...] = generator.uniform(-1, 1, size=part.shape) / np.sqrt(inputs)
    return nets


@lru_cache(maxsize=64)
def batch_order(seed: int, points: int, epochs: int) -> np.ndarray:
    """(epochs, points) int32, read-only: a permutation an epoch; a longer training begins with a shorter
    one's order."""
    generator = np.random.default_rng([seed, 0xBA7C])
    order = np.stack([generator.permutation(points) for _ in range(epochs)]).astype(np.int32)
    order.setflags(write=False)
    return order


def features(net: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f(x) (..., n) of flat weights (..., size) of one feature's net on its inputs (n, 2), float32."""
    part = unpack(np.asarray(net))
    hidden = np.maximum(np.asarray(x, np.float32) @ part["W1"] + part["b1"][..., None, :], 0)
    hidden = np.maximum(hidden @ part["W2"] + part["b2"][..., None, :], 0)
    return (hidden @ part["w3"][..., None])[..., 0] + part["b3"][..., None]


def stops(setting: ToySetting, checkpoints: Sequence[float]) -> np.ndarray:
    """The steps nearest to the checkpoints, given as fractions of training."""
    return np.array([round(fraction * setting.steps) for fraction in checkpoints], dtype=np.int64)


def train(
    settings: Iterable[ToySetting],
    seeds: Iterable[int],
    checkpoints: Iterable[float] = (1.0,),
    *,
    trace_every: int = 0,
    keep_nets: bool = False,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = True,
) -> ToyResult:
    """Train every setting from every seed.

    checkpoints: increasing fractions of training in [0, 1] (0: before the first step) at which errors and
    heads are recorded.
    trace_every: 0, or every how many steps the real and the phantom head are recorded. keep_nets: keep
    weights at checkpoints.
    engine: "compiled" (CPU), "torch" (`device`), or "auto": compiled on the CPU, torch on any other device.
    threads: of the compiled engine (None: one a core); it changes no result. Raises ValueError for what is
    not allowed.
    """
    settings, seeds, checkpoints = (
        tuple(settings),
        tuple(int(seed) for seed in seeds),
        tuple(float(c) for c in checkpoints),
    )
    if not settings or not all(isinstance(setting, ToySetting) for setting in settings):
        raise ValueError("settings must be one ToySetting or more")
    if not seeds or min(seeds) < 0:
        raise ValueError(f"seeds must be one whole number or more, none negative, not {seeds!r}")
    if (
        not checkpoints
        or min(checkpoints) < 0
        or max(checkpoints) > 1
        or list(checkpoints) != sorted(set(checkpoints))
    ):
        raise ValueError(f"checkpoints must be increasing fractions between 0 and 1, not {checkpoints!r}")
    if trace_every < 0:
        raise ValueError(f"trace_every must be 0 or more steps, not {trace_every!r}")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "compiled" and device not in ("cpu", "auto"):
        raise ValueError(f"the compiled engine runs on the CPU; device {device!r} needs engine='torch'")
    if engine == "torch" or (engine == "auto" and device not in ("cpu", "auto")):
        from lib.toy.reference import TorchEngine
        runner = TorchEngine(device)
    else:
        from lib.toy.compiled import CompiledEngine
        runner = CompiledEngine(threads)
    count = len(settings), len(seeds), len(checkpoints)
    errors, heads = np.full((*count, len(SPLITS), 3), np.nan), np.full((*count, 2), np.nan)
    diverged = np.zeros(count[:2], dtype=bool)
    nets = [np.empty((*count[1:], 2, net_size(s.width)), np.float32) for s in settings] if keep_nets else None
    traces = (
        [np.empty((count[1], -(-s.steps // trace_every), 4), np.float32) for s in settings]
        if trace_every
        else None
    )
    total = sum(setting.steps for setting in settings) * len(seeds)
    # disable=None: shown in a terminal only, so that nothing of it reaches an executed page.
    with tqdm(
        total=total,
        unit="step",
        unit_scale=True,
        desc="toy nets",
        delay=2,
        disable=None if progress else True,
    ) as bar:
        for group in _groups(settings, seeds, runner.key):
            for batch in runner.batches(group):
                record = runner.run(batch, checkpoints, trace_every, keep_nets)
                for m, model in enumerate(batch):
                    at = model.setting_index, model.seed_index
                    errors[at], heads[at], diverged[at] = (
                        record.errors[m],
                        record.heads[m],
                        record.diverged[m],
                    )
                    if traces is not None:
                        traces[at[0]][at[1]] = record.traces[m][:traces[at[0]].shape[1]]
                    if nets is not None:
                        nets[at[0]][at[1]] = record.nets[m]
                bar.update(sum(model.setting.steps for model in batch))
    errors[diverged] = np.nan
    return ToyResult(settings, seeds, checkpoints, errors, heads, diverged, traces, nets)


@dataclass(frozen=True)
class Model:
    """One net of the ensemble and where its record goes."""

    setting: ToySetting
    seed: int
    setting_index: int
    seed_index: int


def _groups(settings, seeds, key) -> list[list[Model]]:
    """All models, those together whose arrays an engine can stack."""
    groups: dict = {}
    for i, setting in enumerate(settings):
        for j, seed in enumerate(seeds):
            groups.setdefault(key(setting), []).append(Model(setting, seed, i, j))
    return list(groups.values())


def points(models: Sequence[Model]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Data of a batch of models, each set drawn once: training (d, n, 5), validation and test (d, 2,
    points, 5), and each model's d.

    The five columns are x_e, x_h and y, float32.
    """
    where: dict = {}
    index = [where.setdefault((model.setting.data, model.seed), len(where)) for model in models]
    drawn = [_points(*key) for key in where]
    return np.stack([pair[0] for pair in drawn]), np.stack([pair[1] for pair in drawn]), index


@lru_cache(maxsize=256)
def _points(constants: ToyConstants, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training (n, 5) and validation and test (2, points, 5) of one set; kept, since neighbours in a grid
    share it."""
    columns = [
        np.column_stack([split.x, split.y]) for split in (sample(constants, seed, name) for name in SPLITS)
    ]
    return columns[0], np.stack(columns[1:])


@dataclass(frozen=True)
class Record:
    """What an engine returns for a batch of m models: as `ToyResult`, with the model as first axis."""

    errors: np.ndarray
    heads: np.ndarray
    diverged: np.ndarray
    traces: np.ndarray
    nets: np.ndarray
