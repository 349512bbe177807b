"""Importance weights of a trained net, at its parameters and at the phantom (Figure 3, on images)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F

from lib import device as devices
from lib import training
from lib.data import pairs
from lib.importance import gini, lorenz_curve, real_and_phantom_weights
from lib.trials import images
from lib.trials import trial as trials
from lib.trials.images import ImageTrial
from lib.trials.trial import Place, Trial

PROTOCOL = 1
FRACTIONS = np.linspace(0, 1, 101)  # of the training pairs, at which Lorenz curves are stored


@dataclass(frozen=True)
class WeightTrial(Trial):
    """The weights of the training pairs under the net of `of`: at its parameters, and at the phantom of a
    SAM step of radius `rho` on each batch of 100.

    Raises ValueError where rho is not above 0.
    """

    of: ImageTrial
    rho: float
    batch_size: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.rho < float("inf"):
            raise ValueError(f"rho must be a finite number above 0, not {self.rho!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size!r}")

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored."""
        return {
            "experiment": "weights",
            "protocol": PROTOCOL,
            "of": self.of.configuration,
            "rho": self.rho,
            "batch_size": self.batch_size,
        }

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return f"weights of {self.of.label}"

    @property
    def cost(self) -> tuple[str, float]:
        """One pass over the training pairs; the net is trained only where its checkpoint is gone."""
        return f"weights {self.of.dataset}", 1.0

    def lacks(self, place: Place) -> str | None:
        """What the net's own trial lacks."""
        return self.of.lacks(place)

    def run(self, place: Place) -> dict:
        """The record; its metrics hold, for ``real`` and ``phantom``, the mean weight, the Gini coefficient
        and the Lorenz curve at FRACTIONS. It is diverged where the net's training is."""
        started = time.perf_counter()
        device = devices.pick(place.device)
        data = pairs.load(self.of.dataset, self.of.seed, place.root)
        model, history = images.train_model(self.of, data, device, place.checkpoint(self.of))
        metrics = None
        if history.diverged_at is None:
            optimizer = training.make_optimizer("sam", model, self.rho, lr=self.of.lr)
            train = images.as_images(data.train, data, device, self.of.train_limit)
            order = training.batch_order(self.of.seed, 0, len(train), self.batch_size)
            model.eval()
            real, phantom = [], []
            for which in order:
                inputs, labels = train.batch(which.to(device))
                pair = real_and_phantom_weights(model, optimizer, inputs, labels, F.cross_entropy, len(labels))
                for weights, batch in zip((real, phantom), pair):
                    weights.append(batch.cpu().numpy())
            metrics = {"real": summary(np.concatenate(real)), "phantom": summary(np.concatenate(phantom))}
        return trials.record(
            self,
            metrics=metrics,
            diverged_at=history.diverged_at,
            device=device.type,
            seconds={"total": time.perf_counter() - started},
        )


def summary(weights: np.ndarray) -> dict:
    """Mean, Gini coefficient and Lorenz curve (at FRACTIONS) of importance weights (n,), as plain values."""
    fractions, shares = lorenz_curve(weights)
    return {
        "mean": float(weights.mean()),
        "gini": float(gini(weights)),
        "points": len(weights),
        "lorenz": [round(float(share), 5) for share in np.interp(FRACTIONS, fractions, shares)],
    }
