"""Nets kept on disk: where a training that was ended or killed goes on, and what later measurements read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib.files import replacing


class CheckpointWarning(UserWarning):
    """A checkpoint that cannot be used; the message names the file and the reason."""


def save_checkpoint(
    path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer | None, history: dict[str, Any]
) -> None:
    """Write the state after the epochs of `history` (of `lib.training.History`, as plain values) to `path`
    atomically; without an optimizer it is a finished net's.

    Nothing happens where `path` is None, or a file that comes from more epochs.
    """
    if path is None or (path.exists() and _epochs(path) > epochs_of(history)):
        return
    state = {"model": model.state_dict(), "history": history, "optimizer": optimizer and optimizer.state_dict()}
    with replacing(path) as file:
        torch.save(state, file)


def load_checkpoint(
    path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer, until: int
) -> dict[str, Any] | None:
    """Put the state at `path` into `model` and `optimizer`, and return its history as plain values.

    None where there is no state or one of more than `until` epochs, or with a CheckpointWarning no usable one; then
    both are as they were.
    """
    if path is None or not path.exists():
        return None
    device = next(model.parameters()).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        own = model.state_dict()
        if set(own) != set(state["model"]) or any(own[k].shape != v.shape for k, v in state["model"].items()):
            raise ValueError("holds another net")
        if epochs_of(state["history"]) > until:
            return None
        if state["optimizer"] is not None:
            optimizer.load_state_dict(state["optimizer"])
        model.load_state_dict(state["model"])
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError on a damaged file
        warnings.warn(f"skipped {path}: {type(error).__name__}: {error}", CheckpointWarning, stacklevel=2)
        return None
    return state["history"]


def epochs_of(history: dict[str, Any]) -> int:
    """The epochs of a history, the one in which it diverged included."""
    return len(history["train_loss"]) + (history["diverged_at"] is not None)


def _epochs(path: Path) -> int:
    """The epochs that the file at `path` comes from; 0 where it cannot be read."""
    try:
        return epochs_of(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["history"])
    except Exception:  # as above
        return 0
