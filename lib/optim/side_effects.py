"""What a forward pass leaves behind, and a step must leave only once: buffers, random state, autocast's copies."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def kept_buffers(model: nn.Module | None = None) -> Iterator[None]:
    """Within this context a forward pass may change the buffers of `model` (batch norm's statistics, spectral norm's
    vectors, moving averages, observers); on leaving they are what they were on entering.

    Without a `model` a hook on the call of any module finds those that are called, with all modules inside them. It
    cannot see a module that is called past its hooks: in a compiled function or a TorchScript module; and a model that
    is compiled with ``fullgraph=True`` takes no such hook. Modules called by other threads are not ours to undo.
    """
    kept: dict[int, tuple[nn.Module, str, Tensor, Tensor]] = {}
    seen: set[nn.Module] = set()
    thread = threading.get_ident()

    def keep(module: nn.Module, _inputs: Any = None) -> None:
        if module in seen or threading.get_ident() != thread:
            return
        for part in module.modules():
            if part not in seen:
                seen.add(part)
                for name, buffer in part.named_buffers(recurse=False):
                    kept.setdefault(id(buffer), (part, name, buffer, buffer.clone()))

    hook = register_module_forward_pre_hook(keep) if model is None else None
    if model is not None:
        keep(model)
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
        with torch.no_grad():
            for part, name, buffer, before in kept.values():
                buffer.copy_(before)
                if getattr(part, name) is not buffer and not isinstance(part, torch.jit.ScriptModule):
                    setattr(part, name, buffer)  # the pass put another tensor in its place


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
