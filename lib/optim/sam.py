"""SGD's two relatives: SAM (equation (3)) and LSAM (equation (5)), around any optimizer of ``torch.optim``.

Both take the descent gradient at the phantom parameter w~ = w + rho g/||g||, g the gradient of the batch loss
at w, and hand it to the base optimizer, which updates w. Weight decay and momentum are the base optimizer's
affair: neither enters the ascent direction g.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import LBFGS, SGD, Optimizer

from lib.optim.side_effects import kept_statistics, random_states, replayed


class SAM(Optimizer):
    """Sharpness-aware minimisation, equation (3).

    `params`     parameters or parameter groups; a group may carry its own ``rho``
    `base`       class of the optimizer that takes the descent step, given `base_kwargs` (``lr`` and so on)
    `rho`        length of the ascent; 0 is the base optimizer, bit for bit and with one evaluation
    `perturb`    the parameters that the ascent may move, by default all
    `clip_norm`  clips the norm of the descent gradient over all parameters; the ascent has length rho anyway

    The norm ||g|| runs over exactly the parameters that move: those of `perturb` that have a gradient and a
    positive rho. Groups of equal rho share one norm, so that splitting parameters into groups for the sake of
    weight decay changes nothing; groups of different rho have a norm each. Either way ||w~ - w|| = rho over
    the parameters of that rho.

    Groups and state are the base optimizer's own: schedulers act on it, and `state_dict` holds its momentum.
    Raises ValueError for an argument that makes no sense.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = SGD,
        rho: float = 0.05,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        _check_rho(rho)
        if not (isinstance(base, type) and issubclass(base, Optimizer)) or issubclass(base, (SAM, LBFGS)):
            raise ValueError(f"base must be an optimizer class that steps without a closure, not {base!r}")
        if clip_norm is not None and not (_is_finite_number(clip_norm) and clip_norm > 0):
            raise ValueError(f"clip_norm must be None or a positive number, not {clip_norm!r}")
        if base_kwargs.get("maximize"):
            raise ValueError("maximize must be False, not True: the ascent and the descent would be one")
        self.clip_norm = clip_norm
        self._phantom_norm: float | Tensor = 0.0
        super().__init__(params, {"rho": float(rho)})
        try:
            self.base = base(self.param_groups, **base_kwargs)
        except TypeError as error:
            raise ValueError(f"base refuses its arguments {sorted(base_kwargs)}: {error}") from None
        self.defaults = {**self.base.defaults, "rho": float(rho)}
        self.param_groups, self.state = self.base.param_groups, self.base.state
        self.perturb = None if perturb is None else list(perturb)
        if self.perturb is not None:
            given = {id(p) for p in self._parameters()}
            if not self.perturb or any(id(p) not in given for p in self.perturb):
                raise ValueError("perturb must be None or a non-empty list of tensors that are among params")

    @property
    def phantom_norm(self) -> float:
        """||w~ - w|| of the last step, over all parameters, as measured; 0 before the first."""
        return float(self._phantom_norm)

    @torch.no_grad()
    def step(
        self,
        closure: Callable[[], Any] | None = None,
        scaler: GradScaler | None = None,
        phantom_closure: Callable[[], Any] | None = None,
    ) -> Any:
        """One step; returns what `closure` returned at w, the loss at the unperturbed point.

        `closure` computes the loss, calls backward (several times to accumulate gradients) and returns the
        loss; gradients are zeroed here, before each evaluation. It is called at w and again at w~, where
        `phantom_closure` may stand in for it. The second evaluation draws the same random numbers from torch
        as the first: dropout masks both alike, and L_B is one function. Random state and batch-norm
        statistics advance once. Where an evaluation raises, w is what it was.

        With a `scaler` the closure scales the loss for backward and returns it unscaled; this method calls
        the scaler's step, the caller its update. Where either evaluation overflows, the update is skipped.

        Raises ValueError where there is no closure.
        """
        if not callable(closure):
            raise ValueError(f"closure must be a function that calls backward, not {closure!r}")
        params = self._parameters()
        noise = random_states(params)
        self._phantom_norm = 0.0
        self.zero_grad()
        with torch.enable_grad():
            loss = closure()
        # A first pass that overflowed gives no direction: the scaler sees its gradients and skips the update.
        if self._movable() and (scaler is None or _all_finite(params)):
            with self.at_phantom(), replayed(noise, params), torch.enable_grad():
                self.zero_grad()
                (phantom_closure or closure)()
        self._descend(scaler)
        return loss

    @contextmanager
    def at_phantom(self) -> Iterator[None]:
        """Within this context w is w~, by the gradients that the parameters carry on entering.

        On leaving, weights and batch-norm statistics are exactly what they were, also after an error.
        """
        moved = [(p, offset, p.detach().clone()) for p, offset in self._offsets()]
        with kept_statistics():
            try:
                with torch.no_grad():
                    for p, offset, _ in moved:
                        p.add_(offset)
                    self._phantom_norm = get_total_norm([p - before for p, _, before in moved])
                yield
            finally:
                with torch.no_grad():
                    for p, _, before in moved:
                        p.copy_(before)

    def _offsets(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(p, rho g/||g||) for every parameter p to be moved, with one norm for each distinct rho."""
        by_rho: dict[float, list[Tensor]] = {}
        for rho, p in self._movable():
            if p.grad is not None:
                by_rho.setdefault(rho, []).append(p)
        for rho, params in by_rho.items():
            for p, direction in zip(params, unit([p.grad for p in params])):
                yield p, direction.mul_(rho)

    def _descend(self, scaler: GradScaler | None) -> None:
        """The base optimizer's step with the gradients at hand, clipped."""
        if self.clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(self.base)
            clip_grad_norm_(self._parameters(), self.clip_norm)
        if scaler is not None:
            scaler.step(self.base)
        else:
            self.base.step()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _movable(self) -> list[tuple[float, Tensor]]:
        """(rho, p) for every parameter p that the ascent moves where it has a gradient."""
        allowed = {id(p) for p in (self._parameters() if self.perturb is None else self.perturb)}
        return [
            (group["rho"], p)
            for group in self.param_groups
            for p in group["params"]
            if group["rho"] > 0 and p.requires_grad and p.numel() and id(p) in allowed
        ]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its ``rho`` defaults to the optimizer's. Raises ValueError for a negative ``rho``."""
        if isinstance(param_group, dict) and "rho" in param_group:
            _check_rho(param_group["rho"])
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("base", "perturb", "clip_norm", "_phantom_norm")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # load_state_dict comes here with new groups and state: the base optimizer must hold the same objects.
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("rho", self.defaults["rho"])  # a checkpoint of the base optimizer alone has none
        self.base.__setstate__({"param_groups": self.param_groups, "state": self.state})


class LSAM(SAM):
    """SAM on the last layer, equation (5): the ascent moves `model.head`, the descent all of `model`.

    `model` keeps the convention of ``lib.models``, ``forward(x) = head(features(x))``. The other arguments
    are SAM's.
    """

    def __init__(
        self,
        model: nn.Module,
        base: type[Optimizer] = SGD,
        rho: float = 0.05,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        head = getattr(model, "head", None)
        if not (isinstance(head, nn.Module) and callable(getattr(model, "features", None))):
            raise ValueError(f"model must have features(x) and a module head; {type(model).__name__} has not")
        super().__init__(model.parameters(), base, rho, head.parameters(), clip_norm, **base_kwargs)
        self.model = model

    def step_fused(
        self, inputs: Tensor, loss_function: Callable[[Tensor], Tensor], scaler: GradScaler | None = None
    ) -> Tensor:
        """One step with one forward and one backward pass of the body; returns the loss at w, detached.

        `loss_function` takes the logits of `inputs` to a scalar. The body is the same at w and w~, so one set
        of features serves both, and the ascent needs the head's gradient only. A `scaler` scales the loss
        here. Otherwise as `step`.
        """
        features = self.model.features(inputs)

        def evaluate(phi: Tensor) -> Tensor:
            loss = loss_function(self.model.head(phi))
            (loss if scaler is None else scaler.scale(loss)).backward()
            return loss.detach()

        at_weights = features.detach() if self._movable() else features
        return self.step(lambda: evaluate(at_weights), scaler, lambda: evaluate(features))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "model": self.model}


def unit(gradients: list[Tensor]) -> list[Tensor]:
    """g/||g||, with one norm for the whole list; zeros where g is zero. Sparse gradients come out dense.

    Dividing by the largest entry first keeps the squares from overflowing (a scaled loss) and underflowing (a
    loss near zero).
    """
    dense = [g.to_dense().to(torch.promote_types(g.dtype, torch.float32)) for g in gradients]
    largest = get_total_norm(dense, math.inf)
    divisor = torch.where(largest == 0, 1.0, largest)
    scaled = [g / divisor.to(g.device) for g in dense]
    norm = get_total_norm(scaled).clamp(min=1)  # one entry is 1 or -1, unless all are 0
    return [g.div_(norm.to(g.device)) for g in scaled]


def _all_finite(params: list[Tensor]) -> bool:
    """Whether every gradient that the parameters carry is finite."""
    gradients = [p.grad for p in params if p.grad is not None and p.numel()]
    return bool(get_total_norm(gradients, math.inf).isfinite())


def _is_finite_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_rho(rho: object) -> None:
    if not (_is_finite_number(rho) and rho >= 0):
        raise ValueError(f"rho must be a finite number of at least 0, not {rho!r}")
