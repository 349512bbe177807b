"""Batches on their way into a net: random crops and flips in training, and ImageNet's mean and deviation.

Crops and flips are those of torchvision's RandomResizedCrop and RandomHorizontalFlip, with the settings of Sagawa et
al. (2020) and Kirichenko et al. (2023) on Waterbirds; the paper's own are lost. torchvision draws one crop for a batch,
from the global generator; here seed and epoch decide that of every image, so that every method sees the same crops.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights
SCALE = (0.7, 1.0)  # area of a crop, as a share of the image's
RATIO = (3 / 4, 4 / 3)  # width to height of a crop
TRIES = 10  # draws of area and ratio until a crop fits; then, as in torchvision, the whole image


def draw_crops(count: int, size: int, seed: int, epoch: int) -> Tensor:
    """What becomes of `count` images of `size` by `size` pixels in one epoch, by nothing but the arguments: int64
    (count, 5), the top, left, height and width of a box in pixels, and 1 where left and right change sides, else 0."""
    # The last number makes this another stream than that of the batches' order, which has seed and epoch too.
    random = np.random.default_rng([seed, epoch, 1])
    area = size**2 * random.uniform(*SCALE, (TRIES, count))
    ratio = np.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1]), (TRIES, count)))
    width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (width <= size) & (height <= size)
    chosen = fits.argmax(0), np.arange(count)  # the first try that fits
    sides = np.where(fits.any(0), np.stack([height[chosen], width[chosen]]), size)
    corners = np.floor(random.random((2, count)) * (size - sides + 1))
    flips = random.random(count) < 0.5
    return torch.from_numpy(np.stack([*corners, *sides, flips], 1).astype(np.int64))


def augment(images: Tensor, crops: Tensor) -> Tensor:
    """Each image cut to its box, scaled up to its old size (bilinear) and flipped where `crops` says so.

    `images` uint8 (n, 3, size, size), `crops` (n, 5) of `draw_crops`, on the same device; float32 (n, 3, size, size)
    from 0 to 1, channels last in memory.
    """
    size = images.shape[-1]
    top, left, height, width, flips = crops[:, :, None].float().unbind(1)
    steps = (torch.arange(size, device=images.device) + 0.5) / size
    # In pixels of the image, whose first is from 0 to 1; no pixel outside of the box takes part.
    rows = (top + height * steps).clamp(top + 0.5, top + height - 0.5)
    columns = (left + width * steps).clamp(left + 0.5, left + width - 0.5)
    columns = torch.where(flips > 0, columns.flip(1), columns)
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=-1)
    pixels = F.grid_sample(
        v2.to_dtype(images, torch.float32, scale=True),
        grid * (2 / size) - 1,
        padding_mode="border",
        align_corners=False,
    )
    return pixels.contiguous(memory_format=torch.channels_last)


def normalise(images: Tensor) -> Tensor:
    """What a net sees: images (n, 3, height, width), uint8 or float from 0 to 1, less ImageNet's mean and
    divided by its standard deviation; float32. For evaluation this alone is applied."""
    return v2.normalize(v2.to_dtype(images, torch.float32, scale=True), list(IMAGENET_MEAN), list(IMAGENET_STD))
