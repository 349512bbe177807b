"""Variants of SAM that make something else of the two gradients: GSAM and LookSAM."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Optimizer

from lib.optim.ascent import check
from lib.optim.constants import CONSTANTS
from lib.optim.sam import SAM, unit


class _TwoGradients(SAM):
    """SAM that still has the gradient at w when it descends."""

    _first: Mapping[Tensor, Tensor] = MappingProxyType({})

    def _offsets(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._first = {p: p.grad.to_dense().clone() for p in self._parameters() if p.grad is not None}
        return super()._offsets()

    def _both(self) -> tuple[Mapping[Tensor, Tensor], list[Tensor]]:
        """The gradients at w, which are then let go, and the parameters that have one at the phantom too."""
        first, self._first = self._first, {}
        return first, [p for p in first if p.grad is not None]


class GSAM(_TwoGradients):
    """Surrogate-gap guided SAM (Zhuang et al. 2022, Algorithm 1): descent along

        g~ - alpha g_perp,   g_perp = g - (<g, g~> / ||g~||^2) g~,

    g the gradient at w and g~ at the phantom: it lowers the loss at the phantom as SAM does and, without a
    first-order change to that, raises the loss at w, which narrows the gap between the two. rho stays as it
    is; the paper has it follow the learning rate, which a scheduler of the group's ``rho`` would do. Other
    arguments: SAM's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = SGD,
        rho: float = 0.05,
        alpha: float = CONSTANTS.gsam_alpha,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        check("alpha", alpha, 0, math.inf)
        super().__init__(params, base, rho, perturb, clip_norm, **base_kwargs)
        self.defaults["alpha"] = float(alpha)

    def _descend(self, scaler: GradScaler | None) -> None:
        first, both = self._both()
        rejected = orthogonal([first[p] for p in both], [p.grad for p in both])
        for p, part in zip(both, rejected):
            p.grad = p.grad.to_dense().sub_(part, alpha=self.defaults["alpha"])
        super()._descend(scaler)


class LookSAM(_TwoGradients):
    """LookSAM (Liu et al. 2022, Algorithm 1): a SAM gradient at every k-th step only.

        at steps 0, k, 2k, ...:   descent along g~;   g_v = g~ - (<g~, g> / ||g||^2) g is kept
        between:                  descent along g + alpha ||g|| g_v / ||g_v||, with one evaluation

    Norms run over all parameters. The step's number and g_v's direction are part of `state_dict`. Between,
    nothing is perturbed: `phantom_norm` is 0. Other arguments: SAM's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = SGD,
        rho: float = 0.05,
        k: int = CONSTANTS.looksam_period,
        alpha: float = CONSTANTS.looksam_alpha,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be a whole number of at least 1, not {k!r}")
        check("alpha", alpha, 0, math.inf)
        super().__init__(params, base, rho, perturb, clip_norm, **base_kwargs)
        self.defaults |= {"k": k, "alpha": float(alpha)}

    def _movable(self) -> list[tuple[float, Tensor]]:
        return [] if self.param_groups[0].get("steps", 0) % self.defaults["k"] else super()._movable()

    def _descend(self, scaler: GradScaler | None) -> None:
        first, both = self._both()
        directions = unit(orthogonal([p.grad for p in both], [first[p] for p in both]))
        if not first:
            kept = [p for p in self._parameters() if p.grad is not None and "g_v" in self.state.get(p, {})]
            length = self.defaults["alpha"] * get_total_norm([p.grad for p in kept])
            for p in kept:
                p.grad = p.grad.to_dense().add_(length * self.state[p]["g_v"])
        super()._descend(scaler)
        # After the base optimizer's step: Adam takes a state that is not empty for one of its own.
        for p, direction in zip(both, directions):
            self.state[p]["g_v"] = direction.to(p.dtype)
        self.param_groups[0]["steps"] = self.param_groups[0].get("steps", 0) + 1


def orthogonal(vectors: list[Tensor], to: list[Tensor]) -> list[Tensor]:
    """The part of `vectors`, taken as one vector, that is orthogonal to `to`."""
    along = unit(to)
    component = sum(torch.sum(v * u) for v, u in zip(vectors, along))
    return [v - component * u for v, u in zip(vectors, along)]
