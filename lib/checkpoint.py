"""Nets kept on disk: where a training that was ended or killed goes on, and what later measurements read."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib.files import replacing


class CheckpointWarning(UserWarning):
    """A checkpoint that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """A file for the net of one training, and what that is made from, as plain values: a file of another training is
    not taken for it."""

    path: Path
    made_from: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    checkpoint: Checkpoint | None, model: nn.Module, optimizer: torch.optim.Optimizer | None, history: dict[str, Any]
) -> None:
    """Write the state after the epochs of `history` (of `lib.training.History`, as plain values) to the
    file atomically; without an optimizer it is a finished net's.

    Nothing happens where `checkpoint` is None, or its file comes from more epochs of the same training; that of
    another is kept as ``.unusable``.
    """
    if checkpoint is None:
        return
    path, there = checkpoint.path, _read(checkpoint.path) if checkpoint.path.exists() else None
    own = there is not None and there.get("made_from") == checkpoint.made_from
    if there and own and epochs_of(there["history"]) > epochs_of(history):
        return
    state = {"model": model.state_dict(), "history": history, "optimizer": optimizer and optimizer.state_dict()}
    with replacing(path) as file:
        torch.save(state | {"made_from": checkpoint.made_from}, file)
        if there and not own:
            os.replace(path, path.with_suffix(".pt.unusable"))


def load_checkpoint(
    checkpoint: Checkpoint | None, model: nn.Module, optimizer: torch.optim.Optimizer, until: int
) -> dict[str, Any] | None:
    """Put the state in the file into `model` and `optimizer`, and return its history as plain values.

    None where there is no state or one of more than `until` epochs, or with a CheckpointWarning no usable one; then
    both are as they were.
    """
    if checkpoint is None or not checkpoint.path.exists():
        return None
    device = next(model.parameters()).device
    try:
        state = torch.load(checkpoint.path, map_location=device, weights_only=True)
        if state.get("made_from") != checkpoint.made_from:
            raise ValueError("is of another training")
        own = model.state_dict()
        if set(own) != set(state["model"]) or any(own[k].shape != v.shape for k, v in state["model"].items()):
            raise ValueError("holds another net")
        if epochs_of(state["history"]) > until:
            return None
        if state["optimizer"] is not None:
            optimizer.load_state_dict(state["optimizer"])
        model.load_state_dict(state["model"])
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError on a damaged file
        warnings.warn(f"skipped {checkpoint.path}: {type(error).__name__}: {error}", CheckpointWarning, stacklevel=2)
        return None
    return state["history"]


def epochs_of(history: dict[str, Any]) -> int:
    """The epochs of a history, the one in which it diverged included."""
    return len(history["train_loss"]) + (history["diverged_at"] is not None)


def _read(path: Path) -> dict[str, Any]:
    """What the file at `path` holds; empty where it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        epochs_of(state["history"])
        return state
    except Exception:  # as above
        return {}
