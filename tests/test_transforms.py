from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from lib.data import transforms
from lib.data.transforms import RATIO, SCALE, augment, draw_crops, normalise


def noise(count: int, size: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(8, 256), st.integers(0, 2**32), st.integers(0, 200))
def test_boxes_lie_in_the_image_with_area_and_ratio_in_range(count, size, seed, epoch):
    top, left, height, width = draw_crops(count, size, seed, epoch)[:, :4].double().unbind(1)
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= size).all() and (left + width <= size).all()
    slack = 1 / size  # sides are whole pixels
    assert ((height / size + slack) * (width / size + slack) >= SCALE[0]).all()
    assert ((width + 1) / (height - 1) >= RATIO[0]).all() and ((width - 1) / (height + 1) <= RATIO[1]).all()


def test_crops_depend_on_seed_and_epoch_alone():
    before = torch.random.get_rng_state()
    crops = draw_crops(50, 64, seed=3, epoch=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(draw_crops(50, 64, seed=3, epoch=7), crops)
    for seed, epoch in ((3, 8), (4, 7), (7, 3)):
        assert not torch.equal(draw_crops(50, 64, seed, epoch), crops)


def test_crops_have_the_distribution_of_torchvision():
    size, count = 64, 3000
    *_, flips = crops = draw_crops(count, size, seed=0, epoch=0).T.double()
    ours = crops[:4].T
    transform = v2.RandomResizedCrop(size, SCALE, RATIO)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [transform.make_params([torch.empty(3, size, size)]) for _ in range(count)]
    keys = ("top", "left", "height", "width")
    theirs = torch.tensor([[crop[key] for key in keys] for crop in drawn]).double()
    deviation = (ours.var(0) / count + theirs.var(0) / count).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * deviation).all()
    assert torch.allclose(ours.std(0), theirs.std(0), rtol=0.08)
    assert abs(flips.mean() - 0.5) < 0.04


@pytest.mark.parametrize("size", [9, 32, 64])
def test_augmentation_is_torchvisions_resized_crop_and_flip_of_each_image(size):
    images, crops = noise(24, size), draw_crops(24, size, seed=5, epoch=1)
    augmented = augment(images, crops)
    for image, (*box, flip), found in zip(images, crops.tolist(), augmented):
        expected = functional.resized_crop(image.float() / 255, *box, [size, size], antialias=True)
        expected = functional.horizontal_flip(expected) if flip else expected
        assert torch.allclose(found, expected, atol=2e-4)
    assert set(crops[:, 4].tolist()) == {0, 1}


def test_what_becomes_of_an_image_does_not_depend_on_its_batch_and_channels_stay_last_in_memory():
    images, crops = noise(10, 32), draw_crops(10, 32, seed=0, epoch=0)
    whole, which = augment(images, crops), torch.tensor([7, 2, 5])
    assert torch.allclose(augment(images[which], crops[which]), whole[which], atol=1e-6)
    for batch in (whole, normalise(whole), normalise(images)):
        assert batch.dtype == torch.float32 and batch.shape == (10, 3, 32, 32)
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_normalising_gives_imagenet_pixels_mean_zero_and_deviation_one():
    constants = transforms.IMAGENET_MEAN, transforms.IMAGENET_STD
    mean, deviation = (torch.tensor(values)[:, None, None].expand(3, 8, 8) for values in constants)
    plain, above = normalise(torch.stack([mean, mean + deviation]))
    assert plain.abs().max() < 1e-6 and (above - 1).abs().max() < 1e-5
    pixels = noise(3, 8)
    assert torch.allclose(normalise(pixels), normalise(pixels / 255), atol=1e-6)
