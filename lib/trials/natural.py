"""What the trials on natural images share (Section 4, Appendices B and F): their settings, ResNet-18, and
its training."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lib import resnet, training
from lib.data import cache, sources
from lib.data.sources import check_choice
from lib.natural_images import NaturalImages
from lib.resnet import Loaded, ResNet18
from lib.training import METHODS, History
from lib.trials import trial as trials
from lib.trials.images import check_training, label_of
from lib.trials.trial import Place, Trial


@dataclass(frozen=True, kw_only=True)
class NaturalTrial(Trial):
    """The settings of one training of a ResNet-18.

    `seed` decides the splits, the initial weights of the layers that `weights` lacks, the order of the
    batches and the crops, so that trials of one seed are paired whatever the method. `weights` is as in
    `resnet.load_weights`; a file enters the configuration by its name alone, and the record has its SHA-256.
    With 0 epochs the trial is the net as it begins. Raises ValueError for a value that is not allowed.
    """

    method: str
    lr: float = 0.001  # of the first step; falls to 0 as a cosine
    rho: float = 0.0  # radius of SAM or LSAM; 0 for SGD
    epochs: int = 20
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4  # chosen here: the paper's is lost
    seed: int = 0
    size: int = 64  # side of the images, in pixels
    weights: str = resnet.IMAGENET

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_training(self)
        cache.check_size(self.size)
        if not str(self.weights):
            raise ValueError("weights must be 'imagenet', 'none' or a file, not ''")
        object.__setattr__(self, "weights", str(self.weights))

    @property
    def settings(self) -> dict:
        """The fields as plain values, without a path of this machine."""
        return {**asdict(self), "weights": Path(self.weights).name}

    @property
    def of_what(self) -> str:
        """The images in a word or two."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return label_of(self, self.of_what)

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the images, the method and, in proportion, the epochs; measuring is about one."""
        return f"{self.of_what} {self.method} size {self.size} batch {self.batch_size}", self.epochs + 1.0


@dataclass(frozen=True, eq=False)
class Trained:
    """A net after its training, or as far as that came."""

    model: ResNet18
    history: History
    loaded: Loaded


class _Reached(Exception):
    """Training has come to the epoch before which it was to end."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Until(NaturalImages):
    """The images for the first `end` epochs: a training that asks for another is ended."""

    end: int

    def at_epoch(self, seed: int, epoch: int) -> NaturalImages:
        if epoch >= self.end:
            raise _Reached
        return super().at_epoch(seed, epoch)


def train_model(
    trial: NaturalTrial,
    classes: int,
    train: NaturalImages,
    validation: NaturalImages,
    place: Place,
    checkpoint: Path | None = None,
    until: int | None = None,
) -> Trained:
    """Train the trial's net on `train`; `checkpoint` is where it is kept, or was.

    With `until` the training ends after that many of the trial's epochs, in the middle of its schedule; the
    history is then empty, and `checkpoint` a file of such a training alone.
    """
    device = train.labels.device
    model = training.initial_model(ResNet18, classes, seed=trial.seed, device=device)
    loaded = resnet.load_weights(model, trial.weights, place.root)
    optimizer = training.make_optimizer(
        trial.method, model, trial.rho, lr=trial.lr, momentum=trial.momentum, weight_decay=trial.weight_decay
    )
    if until is not None:
        train = _Until(train.pixels, train.labels, end=until)
    try:
        history = training.train(
            model,
            optimizer,
            train,
            validation,
            epochs=trial.epochs,
            batch_size=trial.batch_size,
            seed=trial.seed,
            label=trial.label,
            checkpoint=checkpoint,
        )
    except _Reached:
        history = History()
    return Trained(model, history, loaded)


def natural_record(
    trial: NaturalTrial,
    trained: Trained,
    metrics: dict | None,
    images: dict[str, int],
    started: float,
    device: torch.device,
) -> dict:
    """The trial's record. `images` are the numbers of images in each split, which tell a reduced set from a
    complete one; `started` is the value of `time.perf_counter` at the trial's begin."""
    history, loaded = trained.history, trained.loaded
    weights = {"name": loaded.name, "sha256": loaded.sha256, "fresh": list(loaded.fresh)}
    # An earlier process may have done part of the training.
    total = max(history.seconds, time.perf_counter() - started)
    return trials.record(
        trial,
        metrics=metrics,
        diverged_at=history.diverged_at,
        curve=history.curve,
        weights=weights,
        images=images,
        device=device.type,
        seconds={"training": history.seconds, "total": total},
    )


def lacking(trial: NaturalTrial, name: str, available: bool, published: bool, place: Place) -> str | None:
    """In one line what the trial lacks at `place`: the images of the set `name`, or the weights."""
    if not available:
        command = sources.command(name, sources.data_root(place.root))
        otherwise = (
            f", or get them with: {command}" if published else "; this set is not published: copy its folder there"
        )
        return (
            f"the images of {name} are not under the data root: set SAM_DATA_ROOT to the folder of the "
            f"data sets{otherwise}"
        )
    return resnet.lacking(trial.weights, place.root)
