"""One trial of leaving a domain out, on PACS, VLCS or OfficeHome: a cell of Table 2 (Appendix F)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib import device as devices
from lib import probes, training
from lib.data import domains
from lib.data.domains import DomainSet, DomainSplit
from lib.data.sources import check_choice
from lib.natural_images import NaturalImages
from lib.resnet import ResNet18
from lib.trials.images import probing_rate, rate
from lib.trials.natural import NaturalTrial, lacking, natural_record, train_model
from lib.trials.trial import Place

PROTOCOL = 1  # raised when the same configuration comes to mean something else (splits, net, crops, probe)
ATTRIBUTE = "class"  # what the probe reads
SPLITS = ("train", "validation", "target_train", "target_test")


@dataclass(frozen=True)
class DomainTrial(NaturalTrial):
    """The configuration of one trial: a net trained on all domains of `benchmark` (one of `domains.NAMES`)
    but `target`, a letter of Table 2.

    A batch has 96 images, DomainBed's 32 for each of the three domains, drawn from the three together; the
    paper's size is lost. The rest is NaturalTrial's.
    """

    benchmark: str
    target: str
    batch_size: int = field(default=96, kw_only=True)

    def __post_init__(self) -> None:
        check_choice("benchmark", self.benchmark, domains.NAMES)
        check_choice("target", self.target, tuple(domains.BENCHMARKS[self.benchmark].domains))
        super().__post_init__()

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored."""
        return {"experiment": "domains", "protocol": PROTOCOL, **self.settings}

    @property
    def of_what(self) -> str:
        """The benchmark and the domain that is left out."""
        return f"{self.benchmark} without {self.target}"

    def lacks(self, place: Place) -> str | None:
        """What is missing where the images or the weights are not there."""
        return lacking(self, self.benchmark, domains.available(self.benchmark, place.root), True, place)

    def run(self, place: Place) -> dict:
        """Compute the trial: its record, of plain values, for the store; see `measure` for the metrics, which
        are None where it diverged. The trained net stays in the place's checkpoints."""
        started = time.perf_counter()
        device = devices.pick(place.device)
        data = domains.load(self.benchmark, self.target, self.size, self.seed, place.root)
        trained = train_model(
            self,
            data.classes,
            as_images(data.train, device),
            as_images(data.validation, device),
            place,
            place.checkpoint(self),
        )
        metrics = measure(trained.model, data, device) if trained.history.diverged_at is None else None
        images = {split: len(getattr(data, split)) for split in SPLITS}
        return natural_record(self, trained, metrics, images, started, device)


def as_images(split: DomainSplit, device: torch.device) -> NaturalImages:
    """A split on the device."""
    return NaturalImages.of(split.images, split.labels, device)


def measure(model: ResNet18, data: DomainSet, device: torch.device) -> dict:
    """Everything that is measured on a trained net, as plain values.

    Validation is on images of the training domains. `probing_error` is that of a linear probe trained on the
    target's training split and measured on its test split, equation (44); `classifier_error` is the error of
    the net's own head, which knows nothing of the target, on that test split.
    """
    validation_loss, validation_error = training.evaluate(model, as_images(data.validation, device))
    train, test = (
        training.features(model, as_images(split, device)) for split in (data.target_train, data.target_test)
    )
    # One attribute only, so that no other can be confounded with it: the classes keep their own shares.
    probe = probes.linear_probe(
        train,
        {ATTRIBUTE: data.target_train.labels},
        test,
        {ATTRIBUTE: data.target_test.labels},
        ATTRIBUTE,
        allow_unbalanced=True,
    )
    return {
        "validation_loss": validation_loss,
        "validation_error": validation_error,
        "probing_error": {ATTRIBUTE: probing_rate(probe, len(test))},
        "classifier_error": {ATTRIBUTE: rate(_wrong(model, data.target_test, device))},
    }


def _wrong(model: ResNet18, split: DomainSplit, device: torch.device) -> Tensor:
    """Whether the net's own answer is wrong, (n,)."""
    return training.logits(model, as_images(split, device)).argmax(1).cpu() != split.labels
