"""Which device a computation runs on, and on how many threads."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

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
        raise ValueError(
            f"device {name!r} is not available on this machine; use one of "
            f"{', '.join(kind for kind, there in available.items() if there)}"
        )
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


@cache
def reuse_memory() -> None:
    """Let the C library keep freed memory in this process, where it is glibc; elsewhere nothing happens.

    By default glibc gives every large array back to the system, which then clears its pages anew for the next
    step's: a quarter of a training step of the conv net on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # names of malloc.h
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)
