"""Nets kept on disk: where a training that was killed goes on, and what later measurements read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lib.files import replacing


class CheckpointWarning(UserWarning):
    """A checkpoint that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Saved:
    """How far the training in a checkpoint had come, and its history as plain values."""

    epochs: int
    history: dict


def save_checkpoint(
    path: Path | None, epochs: int, model: nn.Module, optimizer: torch.optim.Optimizer | None, history: dict
) -> None:
    """Write the state after `epochs` epochs to `path` atomically; without an optimizer it is a finished
    net's.

    Nothing happens where `path` is None.
    """
    if path is None:
        return
    state = {
        "epochs": epochs,
        "model": model.state_dict(),
        "history": history,
        "optimizer": None if optimizer is None else optimizer.state_dict(),
    }
    with replacing(Path(path)) as file:
        torch.save(state, file)


def load_checkpoint(path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> Saved | None:
    """Put the state at `path` into `model` and `optimizer`; None where there is none, or with a
    CheckpointWarning no usable one, and then both are as they were."""
    if path is None or not Path(path).exists():
        return None
    device = next(model.parameters()).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        own = model.state_dict()
        if set(own) != set(state["model"]) or any(own[k].shape != v.shape for k, v in state["model"].items()):
            raise ValueError("holds another net")
        saved = Saved(state["epochs"], state["history"])
        if state["optimizer"] is not None:
            optimizer.load_state_dict(state["optimizer"])
        model.load_state_dict(state["model"])
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError on a damaged file
        warnings.warn(f"skipped {path}: {type(error).__name__}: {error}", CheckpointWarning, stacklevel=2)
        return None
    return saved
