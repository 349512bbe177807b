"""The toy data of Appendix E: an easy (linear) and a hard (spiral) feature, independent given the label.

Input x = (x_e, x_h) in R^4. For label y the latents z_e, z_h are uniform on y [a, b]; equations (39)-(43):

    x_e = gamma_e (z_e, z_e)
    x_h = gamma_h (z_h cos theta, z_h sin theta) + uniform noise,   theta = kappa |z_h| / b

with kappa the complexity in degrees: the two labels lie on two arms of a spiral.
"""

import math
from dataclasses import dataclass

import numpy as np

from lib import check

SPLITS = ("train", "validation", "test")
NOISY = ("both", "hard")
NOISES = ("uniform_noise", "gaussian_noise", "label_noise", "dropout")


@dataclass(frozen=True)
class ToyConstants:
    """Every constant of the toy generator; "paper": Appendix E, "ours": lost in the text and chosen here.

    Uniform noise falls on all data, other noise on training data only.
    """

    complexity: float = 360.0  # kappa, degrees of rotation of the spiral (paper: varied)
    inner: float = 0.1  # a, smallest |z| (ours)
    outer: float = 1.0  # b, largest |z| (ours)
    easy_interval: tuple[float, float] | None = None  # (a, b) of z_e alone; None: as of z_h (ours)
    easy_scale: float = 1.0  # gamma_e (ours)
    hard_scale: float = 3.0  # gamma_h (ours)
    uniform_noise: float = 0.0  # half-width of the uniform noise on x_h (ours)
    gaussian_noise: float = 0.0  # standard deviation s on the scaled feature (paper: 0 to 1)
    label_noise: float = 0.0  # probability p that a feature's latent changes sign (paper: 0 to 0.1)
    dropout: float = 0.0  # probability q that a feature is replaced by 0 (paper: 0 to 0.4)
    noisy: str = "both"  # the feature that these three fall on: "both" or "hard" only (paper: either)
    training_points: int = 300  # (paper)
    test_points: int = 2000  # fresh clean points for the probing errors; as many for validation (ours)

    def __post_init__(self) -> None:
        check.number("outer", self.outer, 0, above=True)
        if self.easy_interval is not None:
            interval = check.pair("easy_interval", self.easy_interval, 0, rising=True)
            object.__setattr__(self, "easy_interval", interval)
        limits = {"inner": self.outer, "label_noise": 1, "dropout": 1}
        for name in ("complexity", "inner", "easy_scale", "hard_scale", *NOISES):
            check.number(name, getattr(self, name), 0, limits.get(name, math.inf))
        for name in ("training_points", "test_points"):
            check.whole(name, getattr(self, name), 1)
        check.choice("noisy", self.noisy, NOISY)


@dataclass(frozen=True)
class ToySample:
    """n points."""

    x: np.ndarray  # float32 (n, 4), the inputs
    y: np.ndarray  # float32 (n,), labels in {-1, +1}
    z: np.ndarray  # float64 (n, 2), latents (easy, hard)


def sample(constants: ToyConstants, seed: int, split: str = "train") -> ToySample:
    """Draw one split. Labels alternate, so that both are equally frequent (within one point).

    Every source of randomness has a stream of its own: samples of one seed with different constants share
    their labels, their latents up to scale and the same draws for each kind of noise, so comparisons
    between constants stay paired. Raises ValueError for an unknown split or a negative seed.
    """
    check.choice("split", split, SPLITS)
    check.whole("seed", seed)
    streams = [np.random.default_rng([seed, SPLITS.index(split), source]) for source in range(5)]
    latent, uniform, gaussian, flips, drops = streams
    n = constants.training_points if split == "train" else constants.test_points
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    usual = constants.inner, constants.outer
    least, most = np.array([constants.easy_interval or usual, usual]).T
    size = latent.uniform(size=(n, 2)) * (most - least) + least
    z = size * y[:, None]
    noisy = np.array([constants.noisy == "both", True])
    if split == "train":
        z = np.where(noisy & (flips.uniform(size=(n, 2)) < constants.label_noise), -z, z)
    angle = np.radians(constants.complexity) * np.abs(z[:, 1]) / constants.outer
    easy = constants.easy_scale * np.stack([z[:, 0], z[:, 0]], axis=1)
    hard = constants.hard_scale * np.stack([z[:, 1] * np.cos(angle), z[:, 1] * np.sin(angle)], axis=1)
    hard += constants.uniform_noise * uniform.uniform(-1, 1, size=(n, 2))
    features = np.stack([easy, hard], axis=1)  # (n, feature, coordinate)
    if split == "train":
        features += constants.gaussian_noise * noisy[:, None] * gaussian.normal(size=(n, 2, 2))
        features[noisy & (drops.uniform(size=(n, 2)) < constants.dropout)] = 0.0
    return ToySample(features.reshape(n, 4).astype(np.float32), y.astype(np.float32), z)
