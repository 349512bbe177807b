"""Which device a computation runs on, and on how many threads."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from lib import check

NAMES = ("auto", "cuda", "mps", "cpu")


def pick(name: str = "auto") -> torch.device:
    """The torch device called `name`; ``"auto"`` takes the first of CUDA, MPS and CPU that is there.

    Raises ValueError where the name is unknown or this machine lacks the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind, is_there in available.items() if is_there]
    if check.choice("device", name, NAMES) != "auto" and name not in there:
        raise ValueError(f"device {name!r} is not available on this machine; use one of {', '.join(there)}")
    return torch.device(there[0] if name == "auto" else name)


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
    """Let glibc, where it is the C library, keep freed memory in this process.

    By default it gives every large array back to the system, which then clears its pages anew for the next step's: a
    quarter of a training step of the conv net on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # names of malloc.h
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)
