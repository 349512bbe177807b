"""Importance weights of a trained net, at its parameters and at the phantom: what Figure 3 needs, and on sets of two
correlated attributes Figure 5, and 7 and 8 through training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

from book.image_trial import ImageTrial
from lib import check, measure, training
from lib import device as devices
from lib.data.dataset import Source
from lib.optim import SAM
from lib.optim.variants import WITHOUT_RADIUS
from lib.trials import trial as trials
from lib.trials.trial import Place, Trial

# By the kind of the net's trial: the kind of this one, and its protocol.
KINDS = {"images": ("weights", 1), "groups": ("group weights", 2)}
KINDS |= dict.fromkeys(("own pair", "own table"), ("own weights", 1))


@dataclass(frozen=True)
class WeightTrial(Trial):
    """The weights of the training images, as they are without crops, under the net of `of` after `epoch` of its epochs
    (None: all): at its parameters, and at the phantom of a SAM step of radius `rho` on each batch.

    Batch norm is in evaluation mode throughout. A net in the midst of its training is trained up to there, and the
    trial `of` goes on from it where it comes later. Raises ValueError where rho is not above 0, `epoch` is none of the
    training, or the net's images are of a benchmark of domains.
    """

    of: ImageTrial
    rho: float
    epoch: int | None = None
    batch_size: int | None = None  # None: that of the training
    batches: int | None = None  # how many are measured, of the training images in a random order; None: all

    def __post_init__(self) -> None:
        check.choice("the kind of the trial", self.of.configuration["experiment"], KINDS)
        object.__setattr__(self, "rho", check.number("rho", self.rho, 0, above=True))
        size = self.of.batch_size if self.batch_size is None else check.whole("batch_size", self.batch_size, 1)
        object.__setattr__(self, "batch_size", size)
        if self.batches is not None:
            check.whole("batches", self.batches, 1)
        if self.epoch is not None and check.whole("epoch", self.epoch, 0, self.of.epochs) == self.of.epochs:
            object.__setattr__(self, "epoch", None)  # the end has one name

    @property
    def configuration(self) -> dict[str, Any]:
        """The trial as plain values, as stored."""
        of = self.of.configuration
        kind, protocol = KINDS[of["experiment"]]
        own = {"of": of, "rho": self.rho, "batch_size": self.batch_size}
        part = {"epoch": self.epoch, "batches": self.batches}
        if kind == "weights":
            part = {name: value for name, value in part.items() if value is not None}
        return {"experiment": kind, "protocol": protocol, **own, **part}

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return f"weights of {self.of.label}" + ("" if self.epoch is None else f" after epoch {self.epoch}")

    @property
    def cost(self) -> tuple[str, float]:
        """In epochs of SGD: measuring is about one and a half; an epoch of a method with two passes two. The whole net
        is trained only where its checkpoint is gone."""
        passes = 1 if self.of.method in (*WITHOUT_RADIUS, "lsam") else 2
        return f"weights {self.of.data.name} {self.of.size}", 1.5 + passes * (self.epoch or 0)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The net's data set."""
        return self.of.sources

    def lacks(self, place: Place) -> str | None:
        """What the net's own trial lacks."""
        return self.of.lacks(place)

    def run(self, place: Place) -> dict[str, Any]:
        """The record. Its metrics hold, for ``real`` and ``phantom``, a `measure.summary`, and on sets of two
        correlated attributes `measure.by_contribution`; they are None where the net's training diverged."""
        started = time.perf_counter()
        device = devices.pick(place.device)
        data = self.of.data.load(self.of.seed, self.of.size, place.root)
        net = self.of.train(data, device, place, self.epoch)
        metrics, diverged_at = None, net.history.diverged_at
        if diverged_at is None:
            order = training.batch_order(self.of.seed, 0, len(self.of.seen(data)), self.configuration["batch_size"])
            optimizer = cast(SAM, training.make_optimizer("sam", net.model, self.rho, lr=self.of.lr))
            given = net.model, data, optimizer, order[: self.batches]
            metrics = measure.weights(*given, self.configuration["experiment"] != "weights", self.of.strengths)
        seconds = {"total": time.perf_counter() - started}
        return trials.record(self, metrics=metrics, diverged_at=diverged_at, device=device.type, seconds=seconds)
