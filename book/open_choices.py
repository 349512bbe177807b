"""Chapter 13's trials: every constant of the toy that the text lost, one at a time and all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from lib.data.toy import ToyConstants
from lib.toy.ensemble import ToySetting, intervention, lsam
from lib.trials.plan import Plan
from lib.trials.store import Store
from lib.trials.toy import ToyTrial

RADII = (0.0, 0.4, 0.7, 1.0, 1.4)  # of LSAM; 0 is SGD
RATIOS = (0.5, 2.0, 8.0)  # c of the interventions
EFFECTS = ("importance", "learning_rate", "both")
POINTS, SEEDS, FIRST_SEED = 200, 10, 100
TRACE_EVERY = 10  # steps between two records of the head
NAME = "open-choices"


@dataclass(frozen=True)
class Choice:
    """One lost constant: what is chosen elsewhere in the book, the range of the design, the values that it
    takes alone, and why that range."""

    name: str
    symbol: str
    words: str
    ours: float
    low: float
    high: float
    alone: tuple[float, ...]
    why: str
    scale: str = "linear"  # or "log", or "whole" (a whole number, evenly spread on a logarithmic axis)

    def at(self, share: float) -> float:
        """The value at a share of the range, in [0, 1], to three digits."""
        if self.scale == "linear":
            return float(f"{self.low + share * (self.high - self.low):.3g}")
        value = self.low * (self.high / self.low) ** share
        return round(value) if self.scale == "whole" else float(f"{value:.3g}")


CHOICES = (
    Choice(
        "gap",
        "$a/b$",
        "smallest over largest latent, a / b",
        0.1,
        0.0,
        0.4,
        (0.0, 0.2, 0.4),
        "from arms that meet at the centre to a spiral without its inner third",
    ),
    Choice(
        "outer", "$b$", "largest latent, b", 1.0, 0.5, 2.0, (0.5, 2.0), "half and double: both features' scale", "log"
    ),
    Choice("easy_scale", r"$\gamma_e$", "scale of the line, γ_e", 1.0, 0.5, 2.0, (0.5, 2.0), "half and double", "log"),
    Choice(
        "hard_scale",
        r"$\gamma_h$",
        "scale of the spiral, γ_h",
        3.0,
        1.0,
        6.0,
        (1.0, 2.0, 6.0),
        "from the line's own scale to twice ours",
        "log",
    ),
    Choice(
        "noise",
        r"noise$\,/\,\gamma_h b$",
        "half-width of the uniform noise over γ_h b",
        0.0,
        0.0,
        0.1,
        (0.05, 0.1),
        "up to a tenth of the spiral's radius: its arms stay apart",
    ),
    Choice(
        "complexity",
        r"$\kappa$",
        "complexity κ, in degrees",
        360.0,
        180.0,
        540.0,
        (180.0, 270.0, 450.0, 540.0),
        "from half a turn to one and a half",
    ),
    Choice(
        "learning_rate",
        r"$\eta$",
        "learning rate η",
        0.05,
        0.01,
        0.1,
        (0.01, 0.1),
        "what the paper sweeps on its paired sets",
        "log",
    ),
    Choice(
        "width",
        "width",
        "width of the hidden layers",
        64,
        16,
        96,
        (16, 32, 128),
        "a quarter to one and a half of ours; alone to double",
        "whole",
    ),
    Choice(
        "epochs",
        "epochs",
        "epochs",
        200,
        40,
        200,
        (50, 100, 400),
        "a fifth of ours to ours: what can be afforded; alone also double",
        "whole",
    ),
    Choice("head_easy", "$w_e$", "w_e at the start", 1.0, 0.5, 2.0, (0.5, 2.0), "half and double", "log"),
    Choice("head_hard", "$w_h$", "w_h at the start", 1.0, 0.5, 2.0, (0.5, 2.0), "half and double", "log"),
)
TOGETHER = (  # of the head's two weights: both at once
    {"head_easy": 0.5, "head_hard": 0.5},
    {"head_easy": 2.0, "head_hard": 2.0},
)
OURS = {choice.name: choice.ours for choice in CHOICES}


def common(values: Mapping[str, float]) -> dict:
    """What the settings of one point share, as keywords of `ToySetting`, from a value for every choice.

    Raises ValueError where a choice is missing or unknown.
    """
    if values.keys() != OURS.keys():
        raise ValueError(f"values must be of {', '.join(OURS)}, not of {', '.join(values)}")
    v = dict(values)
    data = ToyConstants(
        complexity=v["complexity"],
        inner=_digits(v["gap"] * v["outer"]),
        outer=v["outer"],
        easy_scale=v["easy_scale"],
        hard_scale=v["hard_scale"],
        uniform_noise=_digits(v["noise"] * v["hard_scale"] * v["outer"]),
    )
    return {
        "data": data,
        "width": int(v["width"]),
        "epochs": int(v["epochs"]),
        "learning_rate": v["learning_rate"],
        "head": (v["head_easy"], v["head_hard"]),
    }


def values_of(setting: ToySetting) -> dict[str, float]:
    """The value of every choice, back from any setting of a point."""
    data = setting.data
    return {
        "gap": data.inner / data.outer,
        "outer": data.outer,
        "easy_scale": data.easy_scale,
        "hard_scale": data.hard_scale,
        "noise": data.uniform_noise / data.hard_scale / data.outer,
        "complexity": data.complexity,
        "learning_rate": setting.learning_rate,
        "width": setting.width,
        "epochs": setting.epochs,
        "head_easy": setting.head[0],
        "head_hard": setting.head[1],
    }


def trial(values: Mapping[str, float], seeds: int = SEEDS, first_seed: int = FIRST_SEED) -> ToyTrial:
    """One point: SGD, LSAM at `RADII`, and each intervention at `RATIOS`, all with these constants."""
    shared = common(values)
    settings = [lsam(radius, **shared) for radius in RADII]
    settings += [intervention(effect, ratio, **shared) for effect in EFFECTS for ratio in RATIOS]
    return ToyTrial(tuple(settings), seeds, first_seed, TRACE_EVERY, NAME)


def sample(points: int, seed: int = 0) -> list[dict[str, float]]:
    """The first points of a scrambled Sobol sequence over the ranges of all `CHOICES`.

    Fewer points are the first of more. Raises ValueError for less than one point.
    """
    if points < 1:
        raise ValueError(f"points must be at least 1, not {points!r}")
    sequence = qmc.Sobol(len(CHOICES), seed=seed).random_base2(max(0, int(np.ceil(np.log2(points)))))
    return [{choice.name: choice.at(share) for choice, share in zip(CHOICES, shares)} for shares in sequence[:points]]


def design(points: int = POINTS, seed: int = 0, seeds: int = SEEDS, first_seed: int = FIRST_SEED) -> list[ToyTrial]:
    """The space-filling design: one trial a point, `seeds` seeds each."""
    return [trial(values, seeds, first_seed) for values in sample(points, seed)]


def alone() -> list[dict[str, float]]:
    """Our choice, then every change of one constant (of the head also of both weights), the rest as ours."""
    changes = [{choice.name: value} for choice in CHOICES for value in choice.alone]
    return [OURS | change for change in ({}, *changes, *TOGETHER)]


def one_at_a_time(seeds: int = SEEDS, first_seed: int = FIRST_SEED) -> list[ToyTrial]:
    """The trials of `alone`."""
    return [trial(values, seeds, first_seed) for values in alone()]


def at_radius(trials: Sequence[ToyTrial], rho: float) -> list[ToyTrial]:
    """The trials with which others are completed by one radius: LSAM alone; none where they have it."""
    if rho in RADII:
        return []
    return [
        ToyTrial((lsam(rho, **common(values_of(one.settings[0]))),), one.seeds, one.first_seed, one.trace_every, NAME)
        for one in trials
    ]


def plan(store: Store, seeds: int = SEEDS) -> Plan:
    """All trials of the chapter."""
    return Plan((*one_at_a_time(seeds), *design(seeds=seeds)))


def _digits(value: float) -> float:
    """Four digits, so that a product is the same on every machine."""
    return float(f"{value:.4g}")
