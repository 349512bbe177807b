"""One training loop for images, whatever the optimizer, on data that stay whole on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from lib import check
from lib.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lib.data.dataset import Split
from lib.data.transforms import augment, draw_crops, normalise
from lib.device import reuse_memory
from lib.models import FeatureNet
from lib.optim.variants import VARIANTS, take_step

METHODS = tuple(VARIANTS)
EVALUATION_BATCH = 500
CHECKPOINT_SECONDS = 60.0  # at most this much training is lost where a process is killed, and one epoch
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images on one device, kept as bytes: a quarter of the memory."""

    pixels: Tensor  # uint8 (n, height, width, 3): the memory order that channels_last asks for
    labels: Tensor  # int64 (n,)
    mean_pixel: Tensor | None = None  # float32 (3,), subtracted; None: normalised as ImageNet's, cropped in training
    crops: Tensor | None = None  # of the images as training sees them in one epoch; None: they are seen plain

    @classmethod
    def of(cls, split: Split, mean_pixel: Tensor | None, device: torch.device) -> Images:
        """The images of a split on the device; a memory map stays one on the CPU."""
        mean = None if mean_pixel is None else mean_pixel.to(device, torch.float32)
        return cls(split.images.permute(0, 2, 3, 1).contiguous().to(device), split.labels.to(device), mean)

    def __len__(self) -> int:
        return len(self.labels)

    def at_epoch(self, seed: int, epoch: int) -> Images:
        """The images as training sees them in `epoch`, from 0: those without a mean pixel each cut and flipped by a
        crop of its own, which seed and epoch alone decide."""
        if self.mean_pixel is not None:
            return self
        return replace(self, crops=draw_crops(len(self), self.pixels.shape[1], seed, epoch).to(self.labels.device))

    def batch(self, which: Tensor | slice) -> tuple[Tensor, Tensor]:
        """What a net takes, float32 (b, 3, height, width) in channels_last; labels (b,)."""
        pixels, labels = self.pixels[which], self.labels[which]
        if self.mean_pixel is not None:
            return pixels.float().div_(255).sub_(self.mean_pixel).permute(0, 3, 1, 2), labels
        images = pixels.permute(0, 3, 1, 2)
        return normalise(images if self.crops is None else augment(images, self.crops[which])), labels


@dataclass
class History:
    """What happened in one training: a value for each finished epoch."""

    train_loss: list[float] = field(default_factory=list)  # mean over the batches, each before its update
    validation_loss: list[float] = field(default_factory=list)
    validation_error: list[float] = field(default_factory=list)
    diverged_at: int | None = None  # the step, from 0, whose loss or update was the first that was not finite
    seconds: float = 0.0

    @property
    def curve(self) -> dict[str, list[float]]:
        """The values by epoch, as a record has them."""
        return {name: values for name, values in asdict(self).items() if isinstance(values, list)}


def initial_model(build: Callable[..., Net], *arguments: int, seed: int, device: torch.device) -> Net:
    """`build(*arguments)` with the initial weights of `seed`, the same on every device; in channels_last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(*arguments)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it


def make_optimizer(method: str, model: nn.Module, rho: float, **settings: float) -> torch.optim.Optimizer:
    """SGD, SAM (equation (3)), LSAM (equation (5)) or another of METHODS, with its base optimizer's `settings` (lr,
    momentum, weight_decay, ...), see `lib.optim.variants`. Raises ValueError for an unknown method."""
    return VARIANTS[check.choice("method", method, METHODS)](model, rho, settings)


def batch_order(seed: int, epoch: int, examples: int, batch_size: int) -> list[Tensor]:
    """The epoch's batches as index tensors: a fresh permutation that depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(examples)
    return list(torch.from_numpy(order).split(batch_size))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_images: Images,
    validation: Images,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    until: int | None = None,
    ascent: range | None = None,
    label: str = "",
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train in place with a cosine schedule per step, from the optimizer's learning rate to 0.

    `seed` decides the order of the batches and the crops of augmented images. `until` ends the training after that many
    of its `epochs`, in the midst of the schedule (None: after all). `ascent` are the epochs in which the optimizer's
    rho holds; in the others it is 0 (None: it holds in all). Training stops after the epoch in which a loss was NaN or
    infinite; the history then names the step and holds the epochs before. In a terminal a bar shows the progress.

    `checkpoint` names the file of this very training. Where it holds no more epochs than are wanted, training goes on
    from it, to the same weights that it would have reached undisturbed. It is written after an epoch if
    CHECKPOINT_SECONDS have passed, and at the end, then without the optimizer's state if all epochs are done; a file of
    more epochs stays. Raises ValueError where `until` is none of the epochs.
    """
    until = epochs if until is None else check.whole("until", until, 0, epochs)
    reuse_memory()
    device = train_images.labels.device
    steps_per_epoch = math.ceil(len(train_images) / batch_size)
    peak = [group["lr"] for group in optimizer.param_groups]
    radii = [] if ascent is None else [group["rho"] for group in optimizer.param_groups]
    history = History(**load_checkpoint(checkpoint, model, optimizer, until) or {})
    first = len(history.train_loss)
    if history.diverged_at is not None or 0 < first == until:
        return history
    started = last_saved = time.perf_counter()
    before = history.seconds
    shown = {"total": until * steps_per_epoch, "initial": first * steps_per_epoch, "unit": "step", "disable": None}
    with deterministic(), tqdm(desc=label, leave=False, **shown) as bar:
        for epoch in range(first, until):
            model.train()
            for group, rho in zip(optimizer.param_groups, radii):
                group["rho"] = rho if ascent is not None and epoch in ascent else 0.0
            losses = torch.empty(steps_per_epoch, device=device)
            seen = train_images.at_epoch(seed, epoch)
            for i, which in enumerate(batch_order(seed, epoch, len(train_images), batch_size)):
                falling = 0.5 * (1 + math.cos(math.pi * (epoch * steps_per_epoch + i) / (epochs * steps_per_epoch)))
                for group, lr in zip(optimizer.param_groups, peak, strict=True):
                    group["lr"] = lr * falling
                inputs, labels = seen.batch(which.to(device))
                # Kept on the device: asking for the number would hold up a GPU at every step.
                losses[i] = take_step(model, optimizer, inputs, labels).detach()
                bar.update()
            validation_loss, validation_error = evaluate(model, validation)
            # The epoch's last update has no loss after it; the validation loss shows whether it was finite.
            finite = [*losses.isfinite().tolist(), math.isfinite(validation_loss)]
            if not all(finite):
                history.diverged_at = epoch * steps_per_epoch + min(finite.index(False), steps_per_epoch - 1)
                break
            history.train_loss.append(float(losses.mean()))
            history.validation_loss.append(validation_loss)
            history.validation_error.append(validation_error)
            bar.set_postfix(loss=f"{history.train_loss[-1]:.3f}", validation_error=f"{validation_error:.3f}")
            now = time.perf_counter()
            if epoch + 1 < until and now - last_saved > CHECKPOINT_SECONDS:
                last_saved, history.seconds = now, before + now - started
                save_checkpoint(checkpoint, model, optimizer, asdict(history))
    history.seconds = before + time.perf_counter() - started
    goes_on = until < epochs and history.diverged_at is None
    save_checkpoint(checkpoint, model, optimizer if goes_on else None, asdict(history))
    return history


def evaluate(model: nn.Module, images: Images) -> tuple[float, float]:
    """Mean cross-entropy and error (share of wrong answers) on all of `images`."""
    output = logits(model, images)
    wrong = int((output.argmax(1) != images.labels).sum())
    return float(F.cross_entropy(output, images.labels)), wrong / len(images)


def logits(model: nn.Module, images: Images) -> Tensor:
    """The model's outputs (n, classes) in evaluation mode, on the device."""
    return torch.cat(list(_map(model, model, images)))


def features(model: FeatureNet, images: Images) -> np.ndarray:
    """The representation phi (n, d) of every image, float32, in evaluation mode."""
    return torch.cat([phi.flatten(1).float().cpu() for phi in _map(model, model.features, images)]).numpy()


@torch.no_grad()
def _map(model: nn.Module, function: Callable[[Tensor], Tensor], images: Images) -> Iterator[Tensor]:
    model.eval()
    with deterministic():
        for start in range(0, len(images), EVALUATION_BATCH):
            yield function(images.batch(slice(start, start + EVALUATION_BATCH))[0])


# Inside such a block cuDNN is deterministic and in full float32: a seed decides the result on a GPU too.
deterministic = partial(torch.backends.cudnn.flags, enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
