"""What the paper's protocol on natural images would take on a GPU: counted work, and an assumed speed."""

from __future__ import annotations

from collections.abc import Sequence

from torchvision.models import ResNet18_Weights

from book.natural_plans import Protocol, grid, training_images

SUSTAINED = 5e12  # operations a second, assumed: a quarter of an A100's peak in full float32
MULTIPLY_ADDS = ResNet18_Weights.IMAGENET1K_V1.meta["_ops"] * 1e9  # of one forward pass at 224 pixels
PASS = 3 * 2  # a forward and a backward pass are three forward ones; a multiply-add is two operations


def hours(protocols: Sequence[Protocol], seeds: int) -> float:
    """GPU hours of all trainings and measurements of weights at SUSTAINED; evaluation, reading and decoding
    of images are left out. An estimate: nothing of it was measured."""
    return (
        sum(passes(protocol, seeds) * PASS * MULTIPLY_ADDS * (protocol.base.size / 224) ** 2 for protocol in protocols)
        / SUSTAINED
        / 3600
    )


def passes(protocol: Protocol, seeds: int) -> int:
    """Forward and backward passes of single images: the sweep on seed 0, the selected setting of SGD (one
    pass a step) and of SAM (two) on the other seeds, each net up to each moment, and two passes for the real
    and the phantom weights of all training images."""
    epochs = protocol.base.epochs * (
        sum(1 + (trial.method == "sam") for trial in grid(protocol)) + (seeds - 1) * (1 + 2)
    )
    if protocol.moments:
        epochs += seeds * ((1 + 2) * sum(protocol.moments) + 2 * 2 * (len(protocol.moments) + 1))
    return epochs * training_images(protocol.base.configuration)
