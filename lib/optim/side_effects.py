"""What a forward pass leaves behind, and a step must leave only once: batch-norm statistics, random state."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def kept_statistics() -> Iterator[None]:
    """Within this context batch norm may move its statistics and counters; on leaving they are what they
    were.

    A hook on the call of any module finds the layers inside it, so that no model need be named, and a
    compiled or replicated one is covered too. Modules called by other threads are not ours to undo.
    """
    thread = threading.get_ident()
    seen: set[nn.Module] = set()
    kept: list[tuple[nn.Module, str, Tensor]] = []

    def keep(module: nn.Module, _inputs: Any) -> None:
        if module in seen or threading.get_ident() != thread:
            return
        for part in module.modules():
            if isinstance(part, _NormBase) and part not in seen:
                for name, buffer in part.named_buffers(recurse=False):
                    kept.append((part, name, buffer.clone()))
            seen.add(part)

    handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for part, name, before in kept:
                part.get_buffer(name).copy_(before)


def random_states(params: Iterable[Tensor]) -> dict[torch.device, Tensor]:
    """States of torch's generators: the CPU's, and those of the CUDA and MPS devices that `params` are on."""
    states = {torch.device("cpu"): torch.get_rng_state()}
    for device in {p.device for p in params}:
        if device.type == "cuda":
            states[device] = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            states[device] = torch.mps.get_rng_state()
    return states


def set_random_states(states: dict[torch.device, Tensor]) -> None:
    """Put torch's generators back to `states`, as `random_states` gave them."""
    for device, state in states.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.set_rng_state(state)


@contextmanager
def replayed(states: dict[torch.device, Tensor], params: Iterable[Tensor]) -> Iterator[None]:
    """Within this context torch draws what it drew after `states`; on leaving it goes on where it was."""
    now = random_states(params)
    set_random_states(states)
    try:
        yield
    finally:
        set_random_states(now)
