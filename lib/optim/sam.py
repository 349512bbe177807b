"""SGD's two relatives: SAM (equation (3)) and LSAM (equation (5)), around any optimizer of ``torch.optim``.

Both take the descent gradient at the phantom parameter w~ = w + rho g/||g||, g the gradient of the batch loss
at w, and hand it to the base optimizer, which updates w. Weight decay and momentum are the base optimizer's
affair: neither enters the ascent direction g.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import SGD, Optimizer

from lib import check
from lib.optim.side_effects import kept_buffers, random_states, replayed

Params = Iterable[Any]  # parameters or groups of them
Base = type[Optimizer]
Closure = Callable[..., Any]  # computes a loss, calls backward, returns the loss
Kept = dict[Tensor, Tensor]  # what one part of a step tells the next, by parameter


def _of_base(name: str) -> Any:
    """An attribute of the base optimizer as our own, whoever changes it; `Optimizer.__init__` finds no base yet."""

    def change(self: SAM, value: Any) -> None:
        if "base" in self.__dict__:
            setattr(self.base, name, value)

    return property(lambda self: getattr(self.base, name), change)


class SAM(Optimizer):
    """Sharpness-aware minimisation, equation (3).

    `params`     parameters or parameter groups; a group may carry its own ``rho``
    `base`       class of the optimizer that takes the descent step, given `base_kwargs` (``lr`` and so on)
    `rho`        length of the ascent; 0 is the base optimizer, bit for bit and with one evaluation
    `perturb`    the parameters that the ascent may move, by default all
    `clip_norm`  clips the norm of the descent gradient over all parameters; the ascent has length rho anyway
    `model`      the module whose buffers (batch-norm statistics, ...) a step changes once; without it they are found by
                 the calls of modules, see `side_effects.kept_buffers` for what that cannot see
    `per_rank`   of a `model` in DistributedDataParallel: the ascent of each process follows the gradient of its own
                 examples (m-sharpness), and only descent gradients are averaged over the processes

    The norm ||g|| runs over exactly the parameters that move: those of `perturb` that have a gradient and a
    positive rho. Groups of equal rho share one norm, groups of different rho have a norm each, so that ||w~ - w|| = rho
    over the parameters of that rho.

    `param_groups` and `state` are the base optimizer's own, whoever changes them: schedulers act on it, and
    `state_dict` is its, with one entry more for what a variant remembers. Raises ValueError for an argument or a group
    that makes no sense, and for a base that has a ``rho`` of its own.
    """

    # A variant's settings besides rho, default and check: of the whole optimizer, never of a group.
    own: Mapping[str, tuple[float, Callable[[str, Any], float]]] = {}
    param_groups, state = _of_base("param_groups"), _of_base("state")
    _step_supports_amp_scaling = True  # so that `GradScaler.step` tells `step` that it is the caller

    def __init__(
        self,
        params: Params,
        base: Base = SGD,
        rho: float = 0.05,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        model: nn.Module | None = None,
        per_rank: bool = False,
        **base_kwargs: Any,
    ) -> None:
        for name, (default, checked) in self.own.items():
            setattr(self, name, checked(name, base_kwargs.pop(name, default)))
        if not _steps_alone(base):
            raise ValueError(f"base must be an optimizer class that steps without a closure, not {base!r}")
        check.number("clip_norm", 1 if clip_norm is None else clip_norm, 0, above=True)
        if per_rank and not callable(getattr(model, "no_sync", None)):
            raise ValueError(f"model must be in DistributedDataParallel where per_rank is True, not {model!r}")
        self.clip_norm, self.model, self.per_rank = clip_norm, model, per_rank
        self.steps = 0  # taken, by the base optimizer: a skipped one is none
        self.memory: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self._phantom_norm: float | Tensor = 0.0
        super().__init__([torch.empty(0)], {"rho": check.number("rho", rho, 0)})  # groups and state are the base's
        try:
            self.base = base(params if isinstance(params, Tensor) else list(params), **base_kwargs)
        except TypeError as error:
            raise ValueError(f"base refuses its arguments {sorted(base_kwargs)}: {error}") from None
        if "rho" in self.base.defaults:
            raise ValueError(f"base must have no option called rho, which is SAM's radius, as {base.__name__} has")
        self.defaults |= self.base.defaults
        for group in self.param_groups:
            self._check_group(group)
        self.perturb = None if perturb is None else list(perturb)
        given = {id(p) for p in self._parameters()}
        if self.perturb is not None and (not self.perturb or any(id(p) not in given for p in self.perturb)):
            raise ValueError("perturb must be None or a non-empty list of tensors that are among params")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its ``rho`` defaults to the optimizer's. Raises ValueError as the constructor."""
        if "base" in self.__dict__:
            self._check_group(param_group)
            self.base.add_param_group(param_group)

    def _check_group(self, group: dict[str, Any]) -> None:
        check.number("rho", group.setdefault("rho", self.defaults["rho"]), 0)
        if group.get("maximize"):
            raise ValueError("maximize must be False, not True: the ascent and the descent would be one")
        for name in self.own:
            if name in group and name not in self.base.defaults:
                raise ValueError(f"{name} must be given to {type(self).__name__}, not to a group")

    def __getattr__(self, name: str) -> Any:
        """What only the base optimizer has, as the modes of schedule-free ones: ``eval()``, ``train()``."""
        if name.startswith("_") or "base" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.base, name)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's; under ``sam`` the number of steps and what a variant remembers of each parameter."""
        numbers = {p: number for number, p in enumerate(self._parameters())}
        memory = {numbers[p]: dict(kept) for p, kept in self.memory.items() if kept}
        return {**self.base.state_dict(), "sam": {"steps": self.steps, "memory": memory}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, or the base optimizer's own checkpoint.

        Raises ValueError, and changes nothing, where it is one of another base optimizer or other groups.
        """
        own = state_dict.get("sam", {"steps": 0, "memory": {}})
        state_dict = {name: value for name, value in state_dict.items() if name != "sam"}
        like = copy.copy(self.base)  # its __setstate__ fills in the options that older versions of it had not
        like.__setstate__({"state": {}, "param_groups": [dict(group) for group in state_dict["param_groups"]]})
        for group in like.param_groups:
            self._check_group(group)
            if lacking := self.base.defaults.keys() - group.keys():
                names = ", ".join(sorted(lacking))
                raise ValueError(f"state_dict must be of {type(self.base).__name__}, but its groups lack {names}")
        self.base.load_state_dict(state_dict | {"param_groups": like.param_groups})
        params = self._parameters()
        self.steps, self.memory = own["steps"], defaultdict(dict)
        for number, kept in own["memory"].items():
            p = params[number]
            self.memory[p] = {name: value.to(p.device, copy=True) for name, value in kept.items()}

    def __getstate__(self) -> dict[str, Any]:
        # Hooks, and the step that a scheduler wraps, belong to this very object.
        return {n: v for n, v in self.__dict__.items() if n != "step" and not n.startswith("_optimizer_")}

    # The step.

    @property
    def phantom_norm(self) -> float:
        """||w~ - w|| of the last step, over all parameters, as measured; 0 before the first."""
        return float(self._phantom_norm)

    @torch.no_grad()
    def step(
        self, closure: Closure | None = None, scaler: GradScaler | None = None, phantom_closure: Closure | None = None
    ) -> Any:
        """One step; returns what `closure` returned at w, the loss at the unperturbed point.

        `closure` computes the loss, calls backward (several times to accumulate gradients) and returns the
        loss; gradients are zeroed here, before each evaluation, so that what was accumulated before the step is lost.
        It is called at w and again at w~, where `phantom_closure` may stand in for it. The second evaluation draws the
        same random numbers from torch as the first: dropout masks both alike, and L_B is one function. Random state
        and buffers advance once. Where an evaluation raises, w and all that is remembered is what it was.
        With a `scaler` the closure scales the loss for backward and returns it unscaled; this method calls the scaler's
        step, the caller its update. Where either evaluation overflows, the update is skipped.
        Raises ValueError where there is no closure, or where it is the scaler that calls.
        """
        if not callable(closure):
            raise ValueError(f"closure must be a function that calls backward, not {closure!r}")
        if "found_inf" in self.__dict__:
            raise ValueError("scaler must be given to step(closure, scaler): scaler.step(optimizer) scales one pass")
        for group in self.param_groups:
            self._check_group(group)
        first, second = self._evaluations(closure, phantom_closure or closure, scaler)
        ascends, noise = bool(self._movable()), random_states(self._parameters())
        self._phantom_norm = 0.0
        kept: Kept = {}
        no_sync: Any = getattr(self.model, "no_sync", nullcontext) if self.per_rank and ascends else nullcontext
        with no_sync(), torch.enable_grad():
            self.zero_grad()
            loss = first()
        # A first pass that overflowed gives no direction: the scaler sees its gradients and skips the update.
        if ascends and (scaler is None or self._all_finite()):
            with self.at_phantom(kept), replayed(noise), torch.enable_grad():
                self.zero_grad()
                second()
        remembered = self._redirect(kept)
        if self._descend(scaler):
            self.steps += 1
            for name, values in remembered.items():
                for p in values:
                    self.memory[p][name] = values[p]
        return loss

    @contextmanager
    def at_phantom(self, kept: Kept | None = None) -> Iterator[None]:
        """Within this context w is w~, by the gradients at hand; afterwards weights and buffers are what they were.
        Into `kept` goes what `_redirect` is to find."""
        with torch.no_grad():
            moved = [(p, offset, p.detach().clone()) for p, offset in self._offsets({} if kept is None else kept)]
        with kept_buffers(self.model):
            try:
                with torch.no_grad():
                    for p, offset, _ in moved:
                        p.add_(offset)
                    self._phantom_norm = get_total_norm([p - before for p, _, before in moved]) if moved else 0.0
                torch.clear_autocast_cache()  # autocast keeps casts of the weights that were
                yield
            finally:
                with torch.no_grad():
                    for p, _, before in moved:
                        p.copy_(before)
                torch.clear_autocast_cache()

    # What a variant changes: how the loss is evaluated, where the ascent goes, what the descent makes of it.

    def _evaluations(self, closure: Closure, at_phantom: Closure, scaler: GradScaler | None) -> tuple[Closure, Closure]:
        """What is called at w and at w~, each of which leaves a gradient."""
        return closure, at_phantom

    def _offsets(self, kept: Kept) -> Iterator[tuple[Tensor, Tensor]]:
        """(p, w~ - w) of every parameter p to be moved; into `kept` goes what `_redirect` is to find."""
        groups: dict[float, Kept] = {}
        for rho, p in self._movable():
            if p.grad is not None:
                groups.setdefault(rho, {})[p] = p.grad.to_dense()
        for rho, gradients in groups.items():
            for p, direction in zip(gradients, self._directions(gradients, kept)):
                yield p, direction.mul_(rho)

    def _directions(self, gradients: Kept, kept: Kept) -> list[Tensor]:
        """The ascents of radius 1 along these dense gradients, whose parameters share one norm."""
        return unit(list(gradients.values()))

    def _redirect(self, kept: Kept) -> dict[str, Kept]:
        """Make the descent direction of the gradients at hand; returns what is to be remembered of a step taken."""
        return {}

    def _descend(self, scaler: GradScaler | None) -> bool:
        """The base optimizer's step with the gradients at hand, clipped; whether it was taken."""
        if self.clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(self.base)
            clip_grad_norm_(self._parameters(), self.clip_norm)
        if scaler is None:
            self.base.step()
            return True
        taken: list[bool] = []
        # A base that unscales by itself is always called, and told whether to do nothing.
        hook = self.base.register_step_post_hook(lambda base, *_: taken.append(not getattr(base, "found_inf", False)))
        try:
            scaler.step(self.base)
        finally:
            hook.remove()
        return any(taken)

    def _all_finite(self) -> bool:
        """Whether every gradient at hand is finite, in all processes where each has its own: they must agree on what
        they do next. Where only another's is not, ours are spoilt, so that the scaler skips the update here too."""
        gradients = [p.grad for p in self._parameters() if p.grad is not None and p.numel()]
        finite = get_total_norm(gradients, math.inf).isfinite().float()
        if self.per_rank:
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
            if not finite:
                gradients[0].fill_(math.inf)
        return bool(finite)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _movable(self) -> list[tuple[float, Tensor]]:
        """(rho, p) for every parameter p that the ascent moves where it has a gradient."""
        allowed = {id(p) for p in self.perturb or self._parameters()}
        given = ((group["rho"], p) for group in self.param_groups for p in group["params"])
        return [(rho, p) for rho, p in given if rho > 0 and p.requires_grad and p.numel() and id(p) in allowed]


class LSAM(SAM):
    """SAM on the last layer, equation (5): the ascent moves `model.head`, the descent all of `model`.

    `model` keeps the convention of ``lib.models``, ``forward(x) = head(features(x))``, and may come wrapped in
    DistributedDataParallel. The other arguments are SAM's.
    """

    def __init__(self, model: nn.Module, base: Base = SGD, rho: float = 0.05, **others: Any) -> None:
        net: Any = model.module if isinstance(model, DistributedDataParallel) else model
        if not (isinstance(getattr(net, "head", None), nn.Module) and callable(getattr(net, "features", None))):
            raise ValueError(f"model must have features(x) and a module head; {type(net).__name__} has not")
        super().__init__(model.parameters(), base, rho, net.head.parameters(), model=model, **others)
        self.net = net

    def step_fused(
        self, inputs: Tensor, loss_function: Callable[[Tensor], Tensor], scaler: GradScaler | None = None
    ) -> Tensor:
        """One step with one forward and one backward pass of the body; returns the loss at w, detached.

        `loss_function` takes the logits of `inputs` to a scalar. The body is the same at w and w~, so one set
        of features serves both, and the ascent needs the head's gradient only. A `scaler` scales the loss
        here. Otherwise as `step`. Raises ValueError where body and head share a parameter: the body is another at w~;
        and where the model is distributed: its processes meet in its own forward pass only.
        """
        head, parts = self.net.head, set(self.net.head.modules())
        of_body = {id(p) for part in self.net.modules() if part not in parts for p in part._parameters.values()}
        if any(id(p) in of_body for p in head.parameters()):
            raise ValueError("model must not share parameters between body and head in step_fused; take step")
        if isinstance(self.model, DistributedDataParallel):
            raise ValueError("model must not be distributed in step_fused; take step, with a closure that calls it")
        with torch.enable_grad():
            features = self.net.features(inputs)

        def evaluate(phi: Tensor) -> Tensor:
            loss = loss_function(head(phi))
            (loss if scaler is None else scaler.scale(loss)).backward()
            return loss.detach()

        at_weights = features.detach() if self._movable() else features
        return self.step(lambda: evaluate(at_weights), scaler, lambda: evaluate(features))


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


def orthogonal(vectors: list[Tensor], to: list[Tensor]) -> list[Tensor]:
    """The part of `vectors`, taken as one real vector, that is orthogonal to `to`."""
    along = unit(to)
    component: Tensor | float = sum((torch.sum(v * u.conj()).real for v, u in zip(vectors, along)), 0.0)
    return [v - component * u for v, u in zip(vectors, along)]


def _steps_alone(base: object) -> bool:
    """Whether `base` is an optimizer class, none of ours, whose step asks for no closure."""
    if not (isinstance(base, type) and issubclass(base, Optimizer)) or issubclass(base, SAM):
        return False
    closure = inspect.signature(base.step).parameters.get("closure")
    return closure is None or closure.default is not inspect.Parameter.empty
