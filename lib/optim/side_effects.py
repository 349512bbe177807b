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


def random_states(params: Iterable[Tensor]) -> dict[torch.Generator, Tensor]:
    """States of torch's generators: the CPU's, and those of the CUDA and MPS devices that `params` are on."""
    generators = [torch.default_generator]
    for device in {p.device for p in params}:
        if device.type == "cuda":
            generators.append(torch.cuda.default_generators[device.index])
        elif device.type == "mps":
            generators.append(torch.mps._get_default_mps_generator())
    return {generator: generator.get_state() for generator in generators}


@contextmanager
def replayed(states: dict[torch.Generator, Tensor]) -> Iterator[None]:
    """Within this context torch draws what it drew after `states`; on leaving it goes on where it was."""
    now = {generator: generator.get_state() for generator in states}
    try:
        for generator, state in states.items():
            generator.set_state(state)
        yield
    finally:
        for generator, state in now.items():
            generator.set_state(state)
