"""Importance weights of a net trained on two correlated attributes, at its parameters and at the phantom:
what Figures 3 and 5, and 7 and 8 through training, need on natural images."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import device as devices
from lib import training
from lib.data import groups
from lib.data.groups import GroupedSet, GroupedSplit
from lib.importance import probe_contributions, real_and_phantom_weights, weight_map, worst_share
from lib.natural_images import NaturalImages
from lib.optim.variants import WITHOUT_RADIUS
from lib.probes import Probe
from lib.resnet import ResNet18
from lib.trials import grouped
from lib.trials import trial as trials
from lib.trials.grouped import GroupTrial
from lib.trials.trial import Place, Trial
from lib.trials.weights import summary

PROTOCOL = 2
BINS = 20  # of equally many images, along the contribution of one attribute
MAP_BINS = 14  # of equal width, along either contribution, over all but 0.5 % of the images at each end
SMALLEST = float(np.finfo(np.float32).tiny)  # a weight below it would have no logarithm
DIGITS = 5  # of a stored value


@dataclass(frozen=True)
class GroupWeightTrial(Trial):
    """The weights of the training images, as they are without crops, under the net of `of` after `epoch` of
    its epochs (None: all): at its parameters, and at the phantom of a SAM step of radius `rho` on each batch.

    Batch norm is in evaluation mode throughout. A net in the midst of its training is trained anew up to
    there, and the trial `of` goes on from it where it comes later. Raises ValueError where rho is not above
    0, or `epoch` is none of the training.
    """

    of: GroupTrial
    rho: float
    epoch: int | None = None
    batch_size: int = 128
    batches: int | None = None  # how many are measured, of the training images in a random order; None: all

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise ValueError(f"rho must be a finite number above 0, not {self.rho!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size!r}")
        if self.batches is not None and self.batches < 1:
            raise ValueError(f"batches must be None or at least 1, not {self.batches!r}")
        if self.epoch is not None and self.epoch not in range(self.of.epochs + 1):
            raise ValueError(f"epoch must be None or a number from 0 to {self.of.epochs}, not {self.epoch!r}")
        if self.epoch == self.of.epochs:
            object.__setattr__(self, "epoch", None)  # the end has one name

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored."""
        return {
            "experiment": "group weights",
            "protocol": PROTOCOL,
            "of": self.of.configuration,
            "rho": float(self.rho),
            "epoch": self.epoch,
            "batch_size": self.batch_size,
            "batches": self.batches,
        }

    @property
    def label(self) -> str:
        """The trial in a few words."""
        when = "" if self.epoch is None else f" after epoch {self.epoch}"
        return f"weights of {self.of.label}{when}"

    @property
    def cost(self) -> tuple[str, float]:
        """In epochs of SGD: measuring is about one and a half; an epoch of a method with two passes two."""
        passes = 1 if self.of.method in (*WITHOUT_RADIUS, "lsam") else 2
        return f"weights {self.of.dataset} size {self.of.size}", 1.5 + passes * (self.epoch or 0)

    def lacks(self, place: Place) -> str | None:
        """What the net's own trial lacks."""
        return self.of.lacks(place)

    def run(self, place: Place) -> dict:
        """The record; see `measure` for the metrics, which are None where the net's training diverged."""
        started = time.perf_counter()
        device = devices.pick(place.device)
        data = groups.load(self.of.dataset, self.of.size, self.of.seed, place.root)
        own = place.checkpoint(self)  # of a training that is not to be finished
        trained = grouped.train(
            self.of, data, device, place, place.checkpoint(self.of) if self.epoch is None else own, self.epoch
        )
        diverged_at = trained.history.diverged_at
        metrics = None if diverged_at is not None else measure(self, trained.model, data, device)
        if own is not None:
            _hand_over(own, place.checkpoint(self.of))
        return trials.record(
            self,
            metrics=metrics,
            diverged_at=diverged_at,
            device=device.type,
            seconds={"total": time.perf_counter() - started},
        )


def measure(trial: GroupWeightTrial, model: ResNet18, data: GroupedSet, device: torch.device) -> dict:
    """What is measured on a net, as plain values.

    ``real`` and ``phantom``: mean weight, Gini coefficient and Lorenz curve (Figure 3). The rest says which
    images get them (Figure 5). The signed contribution of an attribute is y (v . phi + b), with v and b its
    linear probe. In ``contributions`` are two readings of y = 1 or -1: by ``label``, the value of the
    attribute that goes with the image's label, so that the attribute speaks for the label where it is
    positive, as in the toy; and by ``attribute``, its own value, so that the probe is right. They differ for
    the attribute that is not the label, in the groups against the correlation. The *ratio* of a phantom to a
    real weight is divided by its median over all images, which is ``median_ratio``.

    In each reading ``attributes``, for each: ``bins``, the medians of contribution, real and phantom weight
    and ratio in BINS bins of equally many images; ``worst_share``, what part of all importance the quarter of
    the images with the smallest contribution holds; ``slope``, of the least squares of the log ratio on both
    contributions, a standard deviation of the contribution being the unit; its ``probing_error``. And
    ``map``: the same medians by both contributions, [first attribute's bin][second's], None in an empty bin.
    """
    train = grouped.as_images(data.train, device)
    order = training.batch_order(trial.of.seed, 0, len(train), trial.batch_size)[: trial.batches]
    real, phantom = np.maximum(_weights(trial, model, train, order), SMALLEST)
    rows = torch.cat(order)
    measured = NaturalImages(train.pixels[rows.to(device)], train.labels[rows.to(device)])
    phi, probes = training.features(model, measured), grouped.fit_probes(model, data, device)
    ratio = phantom / real
    values = {"real": real, "phantom": phantom, "ratio": ratio / np.median(ratio)}
    readings = {}
    for reading, signs in (("label", _going_with_label(data.train)), ("attribute", data.train.attributes)):
        contributions = {
            name: probe_contributions(phi, signs[name][rows].numpy(), probe) for name, probe in probes.items()
        }
        readings[reading] = _described(contributions, values, probes, np.log(ratio))
    return {
        "real": summary(real),
        "phantom": summary(phantom),
        "median_ratio": float(np.median(ratio)),
        "contributions": readings,
    }


def _going_with_label(train: GroupedSplit) -> dict[str, Tensor]:
    """For every attribute the value (n,) that goes with each image's label in training: the label's own, or
    the other where the two attributes are correlated negatively."""
    together = torch.corrcoef(torch.stack([train.labels, *train.attributes.values()]).double())[0, 1:]
    return {
        name: train.labels if correlation >= 0 else 1 - train.labels
        for name, correlation in zip(train.attributes, together)
    }


def _described(
    contributions: dict[str, np.ndarray], values: dict[str, np.ndarray], probes: dict[str, Probe], log_ratio: np.ndarray
) -> dict:
    """One reading's part of `measure`."""
    slopes = _slopes(list(contributions.values()), log_ratio)
    return {
        "attributes": {
            name: {
                "probing_error": probes[name].error,
                "slope": float(slope),
                "worst_share": {
                    point: float(worst_share(contribution, values[point])) for point in ("real", "phantom")
                },
                "bins": binned(contribution, values),
            }
            for (name, contribution), slope in zip(contributions.items(), slopes, strict=True)
        },
        "map": mapped(contributions, values),
    }


def binned(contribution: np.ndarray, values: dict[str, np.ndarray], bins: int = BINS) -> dict:
    """Medians of contribution (n,) and `values` (n,) in `bins` bins of equally many images, in the order of
    the contribution, and the numbers of images; fewer bins where there are fewer images."""
    parts = np.array_split(np.argsort(contribution, kind="stable"), min(bins, len(contribution)))
    columns = {"contribution": contribution, **values}
    return {
        **{name: [_short(np.median(column[part])) for part in parts] for name, column in columns.items()},
        "images": [len(part) for part in parts],
    }


def mapped(contributions: dict[str, np.ndarray], values: dict[str, np.ndarray], bins: int = MAP_BINS) -> dict:
    """Medians of `values` (n,) in a grid over both contributions (n,), as plain values: see `measure`."""
    first, second = contributions.values()
    edges = [np.linspace(*np.quantile(column, [0.005, 0.995]), bins + 1) for column in (first, second)]
    maps = {name: weight_map(first, second, column, *edges) for name, column in values.items()}
    return {
        "attributes": list(contributions),
        "edges": [[_short(edge) for edge in axis] for axis in edges],
        "images": next(iter(maps.values())).count.tolist(),
        **{
            name: [[None if np.isnan(median) else _short(median) for median in row] for row in table.median]
            for name, table in maps.items()
        },
    }


def _hand_over(checkpoint: Path, net: Path) -> None:
    """Leave a training that ended early to the one that goes on to the end, unless that has a file `net`."""
    try:
        os.link(checkpoint, net)  # not a rename: that would replace a finished net
    except OSError:  # there is such a file, or nothing to hand over, or a disk without links
        pass
    checkpoint.unlink(missing_ok=True)


def _weights(trial: GroupWeightTrial, model: ResNet18, train: NaturalImages, order: list[torch.Tensor]) -> np.ndarray:
    """Real and phantom weights (2, n) of the images in the order of the batches; every batch has its own
    perturbation."""
    optimizer = training.make_optimizer("sam", model, trial.rho, lr=trial.of.lr)
    model.eval()
    found = []
    with training.deterministic():
        for which in order:
            inputs, labels = train.batch(which.to(train.labels.device))
            pair = real_and_phantom_weights(model, optimizer, inputs, labels, F.cross_entropy, len(labels))
            found.append(torch.stack(pair).cpu().numpy())
    return np.concatenate(found, axis=1).astype(np.float64)


def _slopes(contributions: list[np.ndarray], log_ratio: np.ndarray) -> np.ndarray:
    """Least squares of the log ratio (n,) on standardised contributions (n,): a slope for each."""
    standardised = [(column - column.mean()) / (column.std() or 1) for column in contributions]
    return np.linalg.lstsq(np.stack(standardised, axis=1), log_ratio - log_ratio.mean(), rcond=None)[0]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
