"""Checks of arguments: each raises ValueError in one line that names the argument, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T")


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """`value` as a float where it is a finite number from `low` (or `above` it) to `high`."""
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high or (above and value == low):
        least = "" if low == -math.inf else f" above {low:g}" if above else f" of at least {low:g}"
        most = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} must be a finite number{least}{most}, not {value!r}")
    return float(value)


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """`value` as an int where it is a whole number from `least` to `most`; booleans are none."""
    good = isinstance(value, Integral) and not isinstance(value, bool)
    if not good or value < least or (most is not None and value > most):
        limit = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} must be a whole number of at least {least}{limit}, not {value!r}")
    return int(value)


def pair(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, rising: bool = False
) -> tuple[float, float]:
    """`value` as a tuple where it is two finite numbers from `low` to `high`, the second larger if `rising`."""
    good = isinstance(value, Collection) and len(value) == 2
    good = good and all(isinstance(one, Real) and math.isfinite(one) and low <= float(one) <= high for one in value)
    if not good or (rising and not tuple(value)[0] < tuple(value)[1]):
        limit = "" if (low, high) == (-math.inf, math.inf) else f" from {low:g} to {high:g}"
        raise ValueError(f"{name} must be two finite numbers{limit}{', the second larger' * rising}, not {value!r}")
    first, second = value
    return float(first), float(second)


def choice(name: str, value: T, choices: Collection[T]) -> T:
    """`value` where it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
    return value
