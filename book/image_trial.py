"""One trial on images (Section 4, Appendices B and F): data, training, probes, and the record for the store.

Every set of images is a `Source`, and every trial an `ImageTrial` on it; `paired`, `grouped` and `domain` make one with
the paper's settings of its family where they are known.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lib import check, measure, probes, resnet, training
from lib import device as devices
from lib.checkpoint import Checkpoint
from lib.data import cache
from lib.data.dataset import Dataset, Source, Split
from lib.data.domains import Domains
from lib.data.groups import Groups
from lib.data.pairs import Pair
from lib.models import ConvNet, FeatureNet
from lib.optim.variants import WITHOUT_RADIUS
from lib.resnet import Loaded, ResNet18
from lib.training import METHODS, History, Images
from lib.trials import trial as trials
from lib.trials.trial import Place, Trial

PROTOCOL = 1  # raised when the same configuration comes to mean something else (splits, net, crops, probe)
OWN_PROTOCOL = 2  # of data of your own: the grid of the probe's penalties is widened where its end is best
# Settings of natural images. The weight decay and the size of the images are chosen here: the paper's are lost.
NATURAL = {"lr": 0.001, "batch_size": 128, "weight_decay": 1e-4, "size": 64, "weights": resnet.IMAGENET}


@dataclass(frozen=True)
class ImageTrial(Trial):
    """The configuration of one trial; its hash is the trial's name in the store.

    `weights` say which net: None, the small conv net from scratch; else a ResNet-18 that begins with them, as in
    `resnet.load_weights` (a file enters the configuration by its name alone; the record has its SHA-256). `seed`
    decides the splits, the initial weights, the order of the batches and the crops, so that trials of one seed are
    paired whatever the method. With 0 epochs the trial is the net as it begins. Raises ValueError for a value that is
    not allowed.
    """

    data: Source
    method: str
    lr: float  # of the first step; falls to 0 as a cosine
    rho: float = 0.0  # radius of SAM or LSAM; 0 for SGD
    epochs: int = 20
    batch_size: int = 100
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    train_limit: int | None = None  # training images used; None: all
    size: int | None = None  # side of the images in pixels; None where they have a size of their own
    weights: str | None = None
    ascent: tuple[int, int] | None = None  # epochs from the first to before the second, in which rho holds; None: all

    def __post_init__(self) -> None:
        check.choice("method", self.method, METHODS)
        limit = {} if self.train_limit is None else {"train_limit": 1}
        for name, least in {"epochs": 0, "batch_size": 1, "seed": 0, **limit}.items():
            check.whole(name, getattr(self, name), least)
        for name in ("lr", "rho", "momentum", "weight_decay"):  # as floats: 0 and 0.0 are one configuration
            object.__setattr__(self, name, check.number(name, getattr(self, name), 0, above=name == "lr"))
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, not {self.momentum:g}")
        if self.method in WITHOUT_RADIUS and self.rho:
            raise ValueError(f"rho must be 0 where method is {self.method!r}, not {self.rho:g}")
        if self.ascent is not None:
            if len(self.ascent) != 2 or not self.rho or not 0 <= self.ascent[0] < self.ascent[1] <= self.epochs:
                within = f"two epochs, the second later and at most {self.epochs}, and rho above 0"
                raise ValueError(f"ascent must be {within}, not {self.ascent!r} with rho {self.rho:g}")
            object.__setattr__(self, "ascent", tuple(self.ascent))
        if self.size is not None:
            cache.check_size(self.size)
        if self.weights is not None:
            object.__setattr__(self, "weights", str(self.weights))
            if not self.weights:
                raise ValueError(f"weights must be {resnet.IMAGENET!r}, {resnet.NONE!r} or a file, not ''")

    @property
    def configuration(self) -> dict[str, Any]:
        """The trial as plain values, as stored, without a path of this machine."""
        names = [field.name for field in fields(self) if field.name != "data"]
        settings = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.ascent is not None:
            settings["ascent"] = list(self.ascent)
        if self.weights is None:
            settings["train_limit"] = self.train_limit  # named even where it is None, as in all stored records
        else:
            settings["weights"] = Path(self.weights).name
        of_data = self.data.configuration
        protocol = OWN_PROTOCOL if of_data["experiment"].startswith("own") else PROTOCOL
        return {**of_data, "protocol": protocol, **settings}

    @property
    def label(self) -> str:
        """The trial in a few words."""
        if not self.epochs:
            return f"{self.data.name} untrained seed {self.seed}"
        radius = f" rho {self.rho:g}" if self.rho else ""
        radius += " in epochs {} to {}".format(*self.ascent) if self.ascent else ""
        return f"{self.data.name} {self.method} lr {self.lr:g}{radius} seed {self.seed}"

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the images, the method and, in proportion, the epochs; measuring is about one."""
        kind = f"{self.data.name} {self.method} batch {self.batch_size} {self.size or self.train_limit}"
        return kind, self.epochs + 1.0

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data set."""
        return (self.data,)

    def lacks(self, place: Place) -> str | None:
        """What is missing where the images or the weights are not there."""
        missing = self.data.lacks(place.root)
        return missing if missing or self.weights is None else resnet.lacking(self.weights, place.root)

    def run(self, place: Place) -> dict[str, Any]:
        """Compute the trial: its record, of plain values, for the store.

        `status` is ``finished``, or ``diverged`` where a loss was NaN or infinite; then `diverged_at` is the step, from
        0, and there are no metrics: see `measure.errors`. The trained net stays in the place's checkpoints; its curve
        has the plain errors of the validation split. The record of a ResNet-18 has its initial weights, and the
        numbers of images, which tell a reduced set from a complete one.
        """
        started = time.perf_counter()
        device = devices.pick(place.device)
        data = self.data.load(self.seed, self.size, place.root)
        model, history, loaded = self.train(data, device, place)
        more: dict[str, Any] = {"diverged_at": history.diverged_at, "curve": history.curve}
        if loaded is not None:
            more |= {"weights": {**asdict(loaded), "fresh": list(loaded.fresh)}, "images": _counts(data)}
        metrics = None
        if history.diverged_at is None:
            metrics = measure.feature_quality(model, data, strengths=self.strengths).errors
        # An earlier process may have done part of the training.
        seconds = {"training": history.seconds, "total": max(history.seconds, time.perf_counter() - started)}
        return trials.record(self, metrics=metrics, seconds=seconds, device=device.type, **more)

    def train(self, data: Dataset, device: torch.device, place: Place, until: int | None = None) -> Trained:
        """The net after `until` epochs (None: all of them), trained or found in the place's checkpoints, where it
        stays; see `training.train`."""
        loaded, path = None, place.checkpoint(self)
        made_from = {"configuration": self.configuration, "data": trials.fingerprints(self, place)}
        checkpoint = None if path is None else Checkpoint(path, made_from)
        if self.weights is None:
            sizes = data.classes, *data.train.images.shape[1:]
            model: FeatureNet = training.initial_model(ConvNet, *sizes, seed=self.seed, device=device)
        else:
            model = training.initial_model(ResNet18, data.classes, seed=self.seed, device=device)
            loaded = resnet.load_weights(model, self.weights, place.root)
        base = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        history = training.train(
            model,
            training.make_optimizer(self.method, model, self.rho, **base),
            Images.of(self.seen(data), data.mean_pixel, device),
            Images.of(data.validation, data.mean_pixel, device),
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            until=until,
            ascent=None if self.ascent is None else range(*self.ascent),
            label=self.label,
            checkpoint=checkpoint,
        )
        return Trained(model, history, loaded)

    @property
    def strengths(self) -> Sequence[float] | None:
        """Of the probes: the book's protocol, that of all stored records, never goes beyond these."""
        return probes.STRENGTHS if self.configuration["protocol"] == PROTOCOL else None

    def seen(self, data: Dataset) -> Split:
        """The images that the net is trained on."""
        return data.train.take(np.arange(len(data.train))[: self.train_limit])


def paired(data: str | Source, method: str, **settings: Any) -> ImageTrial:
    """A trial on a paired set (Section 4, Appendix B): its name, or a `Pair` of your own."""
    return ImageTrial(Pair(data) if isinstance(data, str) else data, method, **{"lr": 0.05, **settings})


def grouped(data: str | Source, method: str, **settings: Any) -> ImageTrial:
    """A trial on a set of two correlated attributes (Appendix B): its name, or `Groups` of other attributes."""
    return ImageTrial(Groups(data) if isinstance(data, str) else data, method, **{**NATURAL, **settings})


def domain(benchmark: str, target: str, method: str, **settings: Any) -> ImageTrial:
    """A trial of leaving out the domain `target`, a letter of Table 2 (Appendix F).

    A batch has 96 images, DomainBed's 32 for each of the three domains, drawn from the three together.
    """
    return ImageTrial(Domains(benchmark, target), method, **{**NATURAL, "batch_size": 96, **settings})


class Trained(NamedTuple):
    """A net after its training, or as far as that came; `loaded` are the weights that it began with, if any."""

    model: FeatureNet
    history: History
    loaded: Loaded | None


def _counts(data: Dataset) -> dict[str, int]:
    """The numbers of images in each split, by the names that stored records have: where a domain is left out, the
    probes' images are the target's."""
    parts = ("target_train", "target_test") if len(data.attributes) == 1 else ("test", "probe_train", "probe_test")
    return {name: len(getattr(data, name.replace("target", "probe"))) for name in ("train", "validation", *parts)}
