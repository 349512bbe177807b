"""One training loop for images: SGD, SAM or LSAM on data that stay whole on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from lib.checkpoint import load_checkpoint, save_checkpoint
from lib.device import reuse_memory
from lib.optim.variants import VARIANTS, take_step

METHODS = tuple(VARIANTS)
EVALUATION_BATCH = 500
CHECKPOINT_SECONDS = 60.0  # at most this much training is lost where a process is killed, and one epoch


@dataclass(frozen=True)
class Images:
    """Labelled images on one device, kept as bytes: a quarter of the memory, and soon turned into floats."""

    pixels: Tensor  # uint8 (n, height, width, channels): the memory order that channels_last asks for
    labels: Tensor  # int64 (n,)
    mean_pixel: Tensor  # float32 (channels,)

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, mean_pixel: Tensor, device: torch.device) -> Images:
        """From uint8 images (n, channels, height, width), labels (n,) and the mean pixel (channels,)."""
        pixels = images.permute(0, 2, 3, 1).contiguous()
        return cls(pixels.to(device), labels.to(device), mean_pixel.to(device, torch.float32))

    def __len__(self) -> int:
        return len(self.labels)

    def at_epoch(self, seed: int, epoch: int) -> Images:
        """The images as training sees them in `epoch`, from 0: always the same, since none is augmented."""
        return self

    def batch(self, which: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Inputs less the mean pixel, float32 (b, channels, height, width), channels_last; labels (b,)."""
        inputs = self.pixels[which].float().div_(255).sub_(self.mean_pixel)
        return inputs.permute(0, 3, 1, 2), self.labels[which]


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
        return {name: getattr(self, name) for name in ("train_loss", "validation_loss", "validation_error")}


def initial_model(build: type[nn.Module], *arguments, seed: int, device: torch.device) -> nn.Module:
    """`build(*arguments)` with the initial weights of `seed`, the same on every device; in channels_last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(*arguments)
    return model.to(device, memory_format=torch.channels_last)


def make_optimizer(method: str, model: nn.Module, rho: float, **settings) -> torch.optim.Optimizer:
    """SGD, SAM (equation (3)), LSAM (equation (5)) or another of METHODS around its base optimizer, whose
    `settings` (lr, momentum, ...) are.

    Weight decay is the base's, applied in the descent step: it has no part in the ascent direction, but for
    "sam_decay_inside". Raises ValueError for an unknown method.
    """
    if method not in VARIANTS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    return VARIANTS[method](model, rho, settings)


def batch_order(seed: int, epoch: int, examples: int, batch_size: int) -> list[Tensor]:
    """The epoch's batches as index tensors: a fresh permutation that depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(examples)
    return list(torch.from_numpy(order).split(batch_size))


def cosine(step: int, steps: int) -> float:
    """The cosine schedule's factor of the learning rate: 1 at step 0, near 0 at the last of `steps` steps."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_images: Images,
    validation: Images,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    label: str = "",
    checkpoint: Path | None = None,
) -> History:
    """Train in place with a cosine schedule per step, from the optimizer's learning rate to 0.

    `seed` decides the order of the batches, the crops of augmented images, and nothing else. Training stops
    after the epoch in which a loss was NaN or infinite; the history then names the step and holds the epochs
    before. `label` names the progress bar, which is there in a terminal only.

    `checkpoint` is a file of this very training (same data, settings and seed). Where it is there, training
    goes on from it, to the same weights that it would have reached undisturbed; a finished one is only
    loaded. It is written after an epoch if CHECKPOINT_SECONDS have passed, and at the end, then without the
    optimizer's state.
    """
    reuse_memory()
    device = train_images.labels.device
    steps_per_epoch = math.ceil(len(train_images) / batch_size)
    peak = [group["lr"] for group in optimizer.param_groups]
    steps = epochs * steps_per_epoch
    first, history = 0, History()
    if saved := load_checkpoint(checkpoint, model, optimizer):
        first, history = saved.epochs, History(**saved.history)
        if first == epochs or history.diverged_at is not None:
            return history
    started = last_saved = time.perf_counter()
    before = history.seconds
    done = first * steps_per_epoch
    with deterministic(), tqdm(total=steps, initial=done, desc=label, unit="step", leave=False, disable=None) as bar:
        for epoch in range(first, epochs):
            model.train()
            losses = torch.empty(steps_per_epoch, device=device)
            seen = train_images.at_epoch(seed, epoch)
            for i, which in enumerate(batch_order(seed, epoch, len(train_images), batch_size)):
                for group, lr in zip(optimizer.param_groups, peak, strict=True):
                    group["lr"] = lr * cosine(epoch * steps_per_epoch + i, steps)
                inputs, labels = seen.batch(which.to(device))
                # Kept on the device: asking for the number would hold up a GPU at every step.
                losses[i] = take_step(model, optimizer, inputs, labels).detach()
                bar.update()
            validation_loss, validation_error = evaluate(model, validation)
            # The epoch's last update has no loss after it; the validation loss shows whether it was finite.
            finite = torch.cat([losses.isfinite(), losses.new_tensor([validation_loss]).isfinite()])
            if not finite.all():
                first = int((~finite).nonzero()[0])
                history.diverged_at = epoch * steps_per_epoch + min(first, steps_per_epoch - 1)
                break
            history.train_loss.append(float(losses.mean()))
            history.validation_loss.append(validation_loss)
            history.validation_error.append(validation_error)
            bar.set_postfix(loss=f"{history.train_loss[-1]:.3f}", validation_error=f"{validation_error:.3f}")
            now = time.perf_counter()
            if epoch + 1 < epochs and now - last_saved > CHECKPOINT_SECONDS:
                last_saved, history.seconds = now, before + now - started
                save_checkpoint(checkpoint, epoch + 1, model, optimizer, asdict(history))
    history.seconds = before + time.perf_counter() - started
    save_checkpoint(checkpoint, epochs, model, None, asdict(history))
    return history


def evaluate(model: nn.Module, images: Images) -> tuple[float, float]:
    """Mean cross-entropy and error (share of wrong answers) on all of `images`."""
    output = logits(model, images)
    wrong = int((output.argmax(1) != images.labels).sum())
    return float(F.cross_entropy(output, images.labels)), wrong / len(images)


def logits(model: nn.Module, images: Images) -> Tensor:
    """The model's outputs (n, classes) in evaluation mode, on the device."""
    return torch.cat(list(_map(model, model, images)))


def features(model: nn.Module, images: Images) -> np.ndarray:
    """The representation phi (n, d) of every image, float32, in evaluation mode."""
    return torch.cat([phi.flatten(1).cpu() for phi in _map(model, model.features, images)]).numpy()


@torch.no_grad()
def _map(model: nn.Module, function, images: Images) -> Iterator[Tensor]:
    model.eval()
    with deterministic():
        for start in range(0, len(images), EVALUATION_BATCH):
            yield function(images.batch(slice(start, start + EVALUATION_BATCH))[0])


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside the block cuDNN is deterministic and in full float32: a seed decides the result on a GPU too."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
