"""One trial of the paired sets (Section 4): data, training, probes, and the record for the store."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib import device as devices
from lib import probes, training
from lib.data import pairs
from lib.data.pairs import PairedSet, Split
from lib.models import ConvNet
from lib.optim.variants import WITHOUT_RADIUS
from lib.training import METHODS, History, Images
from lib.trials import trial as trials
from lib.trials.trial import Place, Trial

PROTOCOL = 1  # raised when the same configuration comes to mean something else (pairing, net, probe)


@dataclass(frozen=True)
class ImageTrial(Trial):
    """The configuration of one trial; its hash is the trial's name in the store.

    `seed` decides the data split and pairing, the initial weights and the order of the batches, so that
    trials of one seed are paired. With 0 epochs the trial is the untrained net. Raises ValueError for a value
    that is not allowed.
    """

    dataset: str
    method: str
    lr: float = 0.05  # of the first step; falls to 0 as a cosine
    rho: float = 0.0  # radius of SAM or LSAM; 0 for SGD
    epochs: int = 20
    batch_size: int = 100
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    train_limit: int | None = None  # training images used; None: all

    def __post_init__(self) -> None:
        for name, choices in (("dataset", pairs.names()), ("method", METHODS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        limit = self.train_limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(f"train_limit must be a whole number of at least 1, or None, not {limit!r}")
        check_training(self)

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored."""
        own = pairs.fingerprint(self.dataset)
        images = {} if own is None else {"images": own}
        return {"experiment": "images", "protocol": PROTOCOL, **asdict(self), **images}

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return label_of(self, self.dataset)

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the data set, the method and, in proportion, the epochs; probing is a small
        rest."""
        return f"{self.dataset} {self.method} batch {self.batch_size} {self.train_limit}", self.epochs + 0.5

    def lacks(self, place: Place) -> str | None:
        """What is missing where the images of the set are not under the data root."""
        if pairs.available(self.dataset, place.root):
            return None
        sources = " ".join(source for _, source in pairs.PAIRED_SETS[self.dataset][:2])
        return (
            "the images to train on are not under the data root: set SAM_DATA_ROOT to their folder, or "
            f"get them with: python -m lib.data.sources --download {sources}"
        )

    def run(self, place: Place) -> dict:
        """Compute the trial: its record, of plain values, for the store.

        `status` is ``finished``, or ``diverged`` where a loss was NaN or infinite; then `diverged_at` is the
        step, from 0, and there are no metrics. Probing errors are those of equation (1), with 95 % intervals;
        `classifier_error` is the error of the net's own answer against each attribute on the balanced test
        pairs. The trained net stays in the place's checkpoints.
        """
        started = time.perf_counter()
        device = devices.pick(place.device)
        data = pairs.load(self.dataset, self.seed, place.root)
        model, history = train_model(self, data, device, place.checkpoint(self))
        metrics = measure(model, data, device) if history.diverged_at is None else None
        # An earlier process may have done part of the training.
        total = max(history.seconds, time.perf_counter() - started)
        return trials.record(
            self,
            metrics=metrics,
            diverged_at=history.diverged_at,
            curve=history.curve,
            device=device.type,
            seconds={"training": history.seconds, "total": total},
        )


def check_training(trial: Trial) -> None:
    """Check the settings that all trainings on images share, and make their numbers floats: 0 and 0.0 are one
    configuration. Raises ValueError for a value that is not allowed."""
    for name, least in (("epochs", 0), ("batch_size", 1), ("seed", 0)):
        value = getattr(trial, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    for name in ("lr", "rho", "momentum", "weight_decay"):
        value = getattr(trial, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
        object.__setattr__(trial, name, float(value))
    if trial.lr == 0 or trial.momentum >= 1:
        raise ValueError(f"lr must be above 0 and momentum below 1, not {trial.lr:g}, {trial.momentum:g}")
    if trial.method in WITHOUT_RADIUS and trial.rho:
        raise ValueError(f"rho must be 0 where method is {trial.method!r}, not {trial.rho:g}")


def label_of(trial: Trial, images: str) -> str:
    """A training on `images`, a word or two, at its setting and seed."""
    if not trial.epochs:
        return f"{images} untrained seed {trial.seed}"
    radius = f" rho {trial.rho:g}" if trial.rho else ""
    return f"{images} {trial.method} lr {trial.lr:g}{radius} seed {trial.seed}"


def train_model(
    trial: ImageTrial, data: PairedSet, device: torch.device, checkpoint: Path | None = None
) -> tuple[ConvNet, History]:
    """The trial's trained net and what happened on the way; `checkpoint` is where it is kept, or was."""
    model = training.initial_model(ConvNet, data.classes, seed=trial.seed, device=device)
    optimizer = training.make_optimizer(
        trial.method, model, trial.rho, lr=trial.lr, momentum=trial.momentum, weight_decay=trial.weight_decay
    )
    history = training.train(
        model,
        optimizer,
        as_images(data.train, data, device, trial.train_limit),
        as_images(data.validation, data, device),
        epochs=trial.epochs,
        batch_size=trial.batch_size,
        seed=trial.seed,
        label=trial.label,
        checkpoint=checkpoint,
    )
    return model, history


def measure(model: ConvNet, data: PairedSet, device: torch.device) -> dict:
    """Everything that is measured on a trained net, as plain values; see `ImageTrial.run`."""
    validation_loss, validation_error = training.evaluate(model, as_images(data.validation, data, device))
    test, probe_test = as_images(data.test, data, device), as_images(data.probe_test, data, device)
    answers = training.logits(model, probe_test).argmax(1).cpu()
    return {
        "validation_loss": validation_loss,
        "validation_error": validation_error,
        "test_error": rate(training.logits(model, test).argmax(1) != test.labels),
        "probing_error": {
            name: probing_rate(probe, len(probe_test)) for name, probe in fit_probes(model, data, device).items()
        },
        "classifier_error": {name: rate(answers != truth) for name, truth in data.probe_test.attributes.items()},
    }


def fit_probes(model: ConvNet, data: PairedSet, device: torch.device) -> dict[str, probes.Probe]:
    """A linear probe on the net's features for each attribute, trained and measured on the balanced pairs."""
    train, test = (
        training.features(model, as_images(split, data, device)) for split in (data.probe_train, data.probe_test)
    )
    truth = data.probe_train.attributes, data.probe_test.attributes
    return {name: probes.linear_probe(train, truth[0], test, truth[1], name) for name in data.attributes}


def as_images(split: Split, data: PairedSet, device: torch.device, limit: int | None = None) -> Images:
    """The first `limit` (None: all) pairs of a split on the device, less the training set's mean pixel."""
    return Images.of(split.images[:limit], split.labels[:limit], data.mean_pixel, device)


def rate(wrong: Tensor) -> dict:
    """The share of wrong answers (n,) with its 95 % Wilson interval."""
    errors, examples = int(wrong.sum()), len(wrong)
    low, high = probes.wilson_interval(errors, examples)
    return {"error": errors / examples, "low": low, "high": high, "examples": examples}


def probing_rate(probe: probes.Probe, examples: int) -> dict:
    """A probe's error on `examples` test images with its interval, as plain values."""
    return {
        "error": probe.error,
        "low": probe.low,
        "high": probe.high,
        "examples": examples,
        "regularisation": probe.regularisation,
    }


@dataclass(frozen=True, eq=False)
class Reading:
    """What one trained net makes of test pairs whose two images are of different classes."""

    images: Tensor  # uint8 (n, 3, height, width)
    attributes: dict[str, Tensor]  # int64 (n,) each: the truth
    answers: Tensor  # int64 (n,): the net's own answer
    probed: dict[str, np.ndarray]  # int64 (n,) each: what the attribute's probe reads


def read_pairs(trial: ImageTrial, count: int, place: Place = Place()) -> Reading:
    """Let the trial's net read the first `count` balanced test pairs of two classes.

    The net is the one in the place's checkpoints; where there is none it is trained.
    """
    device = devices.pick(place.device)
    data = pairs.load(trial.dataset, trial.seed, place.root)
    model, _ = train_model(trial, data, device, place.checkpoint(trial))
    first, second = data.probe_test.attributes.values()
    chosen = (first != second).nonzero()[:count, 0]
    truth = {name: values[chosen] for name, values in data.probe_test.attributes.items()}
    shown = Split(data.probe_test.images[chosen], truth, data.probe_test.labels[chosen])
    phi = training.features(model, as_images(shown, data, device))
    answers = training.logits(model, as_images(shown, data, device)).argmax(1).cpu()
    probed = {name: probe.predict(phi) for name, probe in fit_probes(model, data, device).items()}
    return Reading(shown.images, truth, answers, probed)
