"""What the variants of SAM are set to where their papers leave a choice: one place for optimizers and toy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VariantConstants:
    """The constants of each variant besides its radius. "Paper" is the variant's own, "ours" chosen here."""

    asam_floor: float = 0.01  # eta, added to |w| in ASAM's operator T (paper)
    gsam_alpha: float = 0.4  # weight of the orthogonal ascent in GSAM (ours: the default of public code)
    looksam_period: int = 5  # k, steps from one SAM gradient to the next in LookSAM (paper)
    looksam_alpha: float = 0.7  # weight of the kept direction in LookSAM (paper)
    friendly_sigma: float = 1.0  # share of the mean gradient that Friendly SAM takes out (paper)
    friendly_decay: float = 0.9  # lambda of its moving average (ours: the default of public code)
    esam_beta: float = 0.6  # share of the weights that ESAM perturbs (paper, CIFAR)
    esam_gamma: float = 0.5  # share of the batch that ESAM descends on (paper, CIFAR)


CONSTANTS = VariantConstants()
