"""Natural images for training and evaluation, in the place of `lib.training.Images`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.data.transforms import Crops, augment, draw_crops, normalise


@dataclass(frozen=True, eq=False)
class NaturalImages:
    """Labelled images on one device, kept as bytes; a batch is normalised as ImageNet's images are.

    As made, images are seen plain. `at_epoch` gives the same images as training sees them in an epoch: each
    cut and flipped by a crop of its own, which seed and epoch alone decide.
    """

    pixels: Tensor  # uint8 (n, size, size, 3): the memory order that channels_last asks for
    labels: Tensor  # int64 (n,)
    crops: Crops | None = None

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, device: torch.device) -> NaturalImages:
        """From uint8 images (n, 3, size, size) and labels (n,). On the CPU a memory map stays one."""
        return cls(images.permute(0, 2, 3, 1).contiguous().to(device), labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def at_epoch(self, seed: int, epoch: int) -> NaturalImages:
        """The images with the crops of `seed` in `epoch`, from 0."""
        crops = draw_crops(len(self), self.pixels.shape[1], seed, epoch)
        return replace(self, crops=crops.to(self.labels.device))

    def batch(self, which: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Inputs, float32 (b, 3, size, size), channels_last, and labels (b,)."""
        images = self.pixels[which].permute(0, 3, 1, 2)
        if self.crops is not None:
            images = augment(images, self.crops[which])
        return normalise(images), self.labels[which]
