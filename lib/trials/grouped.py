"""One trial on a set of two correlated attributes, Waterbirds or CelebA: its rows of Table 1."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import device as devices
from lib import probes, training
from lib.data import groups
from lib.data.groups import GroupedSet, GroupedSplit
from lib.data.sources import check_choice
from lib.natural_images import NaturalImages
from lib.probes import Probe
from lib.resnet import ResNet18
from lib.trials.images import probing_rate, rate
from lib.trials.natural import NaturalTrial, Trained, lacking, natural_record, train_model
from lib.trials.trial import Place

PROTOCOL = 1  # raised when the same configuration comes to mean something else (splits, net, crops, probe)
SPLITS = ("train", "validation", "test", "probe_train", "probe_test")


@dataclass(frozen=True)
class GroupTrial(NaturalTrial):
    """The configuration of one trial on `dataset`, one of `groups.NAMES`; the rest is NaturalTrial's."""

    dataset: str

    def __post_init__(self) -> None:
        check_choice("dataset", self.dataset, groups.NAMES)
        super().__post_init__()

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored."""
        return {"experiment": "groups", "protocol": PROTOCOL, **self.settings}

    @property
    def of_what(self) -> str:
        """The data set."""
        return self.dataset

    def lacks(self, place: Place) -> str | None:
        """What is missing where the images or the weights are not there."""
        return lacking(
            self,
            self.dataset,
            groups.available(self.dataset, place.root),
            groups.SETS[self.dataset].archive is not None,
            place,
        )

    def run(self, place: Place) -> dict:
        """Compute the trial: its record, of plain values, for the store.

        `status` is ``finished``, or ``diverged`` where a loss was NaN or infinite; then `diverged_at` is the
        step, from 0, and there are no metrics: see `measure`. The trained net stays in the place's
        checkpoints; its curve has the plain errors of the validation split.
        """
        started = time.perf_counter()
        device = devices.pick(place.device)
        data = groups.load(self.dataset, self.size, self.seed, place.root)
        trained = train(self, data, device, place, place.checkpoint(self))
        metrics = measure(trained.model, data, device) if trained.history.diverged_at is None else None
        images = {split: len(getattr(data, split)) for split in SPLITS}
        return natural_record(self, trained, metrics, images, started, device)


def train(
    trial: GroupTrial,
    data: GroupedSet,
    device: torch.device,
    place: Place,
    checkpoint: Path | None = None,
    until: int | None = None,
) -> Trained:
    """The trial's net trained on `data`; see `train_model`."""
    return train_model(
        trial, data.classes, as_images(data.train, device), as_images(data.validation, device), place, checkpoint, until
    )


def as_images(split: GroupedSplit, device: torch.device) -> NaturalImages:
    """A split, labelled by the first attribute, on the device."""
    return NaturalImages.of(split.images, split.labels, device)


def measure(model: ResNet18, data: GroupedSet, device: torch.device) -> dict:
    """Everything that is measured on a trained net, as plain values.

    Validation loss and error and the test error are weighted by the shares of the groups in training
    (Appendix B). Probing errors are those of equation (1); `classifier_error` is the error of the net's own
    answer against each attribute on the balanced test images. Intervals are Wilson's of 95 %.
    """
    loss, wrong = _answers(model, data.validation, device)
    _, test_wrong = _answers(model, data.test, device)
    probed, found = data.probe_test, fit_probes(model, data, device)
    answers = training.logits(model, as_images(probed, device)).argmax(1).cpu()
    return {
        "validation_loss": weighted_mean(loss, data.validation.groups, data.group_weights),
        "validation_error": groups.weighted_error(wrong, data.validation.groups, data.group_weights),
        "validation_worst_group_error": groups.worst_group_error(wrong, data.validation.groups),
        "test_error": {
            "error": groups.weighted_error(test_wrong, data.test.groups, data.group_weights),
            "worst_group_error": groups.worst_group_error(test_wrong, data.test.groups),
            "groups": {
                name: rate(test_wrong[data.test.groups == group]) for group, name in enumerate(data.group_names)
            },
        },
        "probing_error": {name: probing_rate(probe, len(probed)) for name, probe in found.items()},
        "classifier_error": {name: rate(answers != truth) for name, truth in probed.attributes.items()},
    }


def fit_probes(model: ResNet18, data: GroupedSet, device: torch.device) -> dict[str, Probe]:
    """A linear probe on the net's features for each attribute, trained and measured on balanced images."""
    train, test = (training.features(model, as_images(split, device)) for split in (data.probe_train, data.probe_test))
    truth = data.probe_train.attributes, data.probe_test.attributes
    return {name: probes.linear_probe(train, truth[0], test, truth[1], name) for name in data.attributes}


def weighted_mean(values: Tensor, group: Tensor, weights: Tensor) -> float:
    """The mean of `values` (n,) if the groups (n,) had the shares `weights` (4,), each group with images."""
    sums = torch.bincount(group, weights=values.double(), minlength=groups.GROUPS)
    return float(sums / torch.bincount(group, minlength=groups.GROUPS) @ weights)


def _answers(model: ResNet18, split: GroupedSplit, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cross-entropy and whether the answer is wrong, of each image of a split, on the CPU."""
    output = training.logits(model, as_images(split, device)).cpu()
    return F.cross_entropy(output, split.labels, reduction="none"), output.argmax(1) != split.labels
