"""Which device a computation runs on, and on how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

NAMES = ("auto", "cuda", "mps", "cpu")


def pick(name: str = "auto") -> torch.device:
    """The torch device called `name`; ``"auto"`` takes the first of CUDA, MPS and CPU that is there.

    Raises ValueError where the name is unknown or this machine lacks the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in NAMES:
        raise ValueError(f"device must be one of {', '.join(NAMES)}, not {name!r}")
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available[name]:
        raise ValueError(f"device {name!r} is not available on this machine; use one of "
                         f"{', '.join(kind for kind, there in available.items() if there)}")
    return torch.device(name)


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Torch on `count` threads within (None: on those it has), and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
