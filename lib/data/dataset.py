"""A data set as a value: images, two or more named attributes, which of them is the label, and splits.

Everything that is trained or measured on images takes this one value (`lib.trials.images`, `lib.measure`); the
modules beside this one make it: from pairs of images, from tables of attributes, from domains, from a user's own
folders and arrays. A `Source` is what a trial carries in its place: a small frozen dataclass that can be sent to
another process, names the data in a stored configuration, and loads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """n labelled images.

    images      uint8 (n, 3, height, width); may be a memory map, whose pixels are read when they are used
    labels      int64 (n,): what a net is trained to answer
    attributes  int64 (n,) each, by name
    """

    images: Tensor
    labels: Tensor
    attributes: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, ready for training and for probes.

    train, validation       what a net is trained on, and what its hyperparameters are chosen on
    test                    what its own answer is measured on
    probe_train, probe_test balanced in all attributes (where there are two or more), for equation (1); no probe is
                            trained on an image that the net was trained or chosen on
    values                  of every attribute, in the order of `attributes`: the names of its values 0, 1, ...
    classes                 how many values the label has
    mean_pixel              float32 (3,), what is subtracted from inputs / 255; None: ImageNet's mean and deviation, and
                            random crops and flips in training
    group_weights           float64 (groups,): the shares of the groups in training where errors are weighted by them
                            (group = combination of the attributes, the last one running fastest); else None
    """

    name: str
    values: dict[str, tuple[str, ...]]
    classes: int
    train: Split
    validation: Split
    test: Split
    probe_train: Split
    probe_test: Split
    mean_pixel: Tensor | None = None
    group_weights: Tensor | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes' names."""
        return tuple(self.values)


class Source(Protocol):
    """What names a data set and can load it."""

    @property
    def name(self) -> str:
        """The set in a word or two, for labels."""

    @property
    def configuration(self) -> dict[str, Any]:
        """What a stored configuration says of the data, as plain values: the kind of ``experiment`` and its own
        fields."""

    def load(self, seed: int = 0, size: int | None = None, root: Path | str | None = None) -> Dataset:
        """The data set as `seed` splits it, of `size` by `size` pixels where its images have no size of their own."""

    def lacks(self, root: Path | str | None = None) -> str | None:
        """In one line what is missing under the data root and how to get it; None: nothing."""
