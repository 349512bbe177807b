"""The variants of SAM: each takes the step of its definition, which is written here once more on plain vectors, and
that of an independent implementation. What holds for all of them: test_optim.py."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from optimizers import CLASSES, advance, assert_close, batches, net
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import SGD, Adam, lr_scheduler

from lib.optim import ASAM, ESAM, GSAM, LSAM, SAM, DecayedSAM, FriendlySAM, LookSAM

RHO = 0.5
MOMENTUM = {"lr": 0.05, "momentum": 0.9}


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def less(vector: Tensor, along: Tensor) -> Tensor:
    """The part of a vector that is orthogonal to another."""
    return vector - (vector @ along) / (along @ along) * along


class Batch:
    """A net on one batch: losses and gradients at any weights, as one vector."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        self.model, (self.x, self.y), self.w = copy.deepcopy(model), batch, vector(model)

    def losses(self, w: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        vector_to_parameters(w, self.model.parameters())
        return F.cross_entropy(self.model(self.x[rows]), self.y[rows], reduction="none")

    def __call__(self, w: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        self.model.zero_grad()
        self.losses(w, rows).mean().backward()
        return parameters_to_vector([p.grad for p in self.model.parameters()])


def vector(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach().clone()


# From a batch, w, the gradient there, the number of the step and what is kept: where the ascent ends (None: nowhere),
# and the direction of descent.


def _sam(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    phantom = w + RHO * unit(g)
    return phantom, at(phantom)


def _lsam(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    head = torch.zeros_like(g)
    head[-27:] = g[-27:]  # 8 weights and a bias of three classes
    return _sam(at, w, head, step, kept)


def _asam(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    scale = w.abs() + 0.1
    phantom = w + RHO * scale**2 * g / (scale * g).norm()
    return phantom, at(phantom)


def _friendly(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    kept["m"] = 0.7 * kept.get("m", 0) + 0.3 * g
    return _sam(at, w, g - 0.8 * kept["m"], step, kept)


def _decayed(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    phantom, descent = _sam(at, w, g + 0.2 * w, step, kept)
    return phantom, descent + 0.2 * phantom


def _gsam(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    phantom, descent = _sam(at, w, g, step, kept)
    return phantom, descent - 0.6 * less(g, descent)


def _looksam(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    if step % 3:
        return None, g + 0.7 * g.norm() * unit(kept["g_v"])
    phantom, descent = _sam(at, w, g, step, kept)
    kept["g_v"] = less(descent, g)
    return phantom, descent


def _esam(at: Batch, w: Tensor, g: Tensor, step: int, kept: dict) -> tuple[Tensor | None, Tensor]:
    phantom, _ = _sam(at, w, g, step, kept)
    rise = at.losses(phantom) - at.losses(w)
    return phantom, at(phantom, rise.topk(math.ceil(0.33 * len(rise))).indices)


STEPS: dict[Callable, tuple[type[SAM], dict]] = {
    _sam: (SAM, {}),
    _lsam: (LSAM, {}),
    _asam: (ASAM, {"eta": 0.1}),
    _friendly: (FriendlySAM, {"sigma": 0.8, "decay": 0.7}),
    _decayed: (DecayedSAM, {"decay": 0.2}),
    _gsam: (GSAM, {"alpha": 0.6}),
    _looksam: (LookSAM, {"k": 3, "alpha": 0.7}),
    _esam: (ESAM, {"beta": 1.0, "gamma": 0.33}),
}


@pytest.mark.parametrize(("definition", "kind"), [*((one, "") for one in STEPS), (_lsam, "lsam fused")])
def test_a_step_is_that_of_the_definition(definition: Callable, kind: str) -> None:
    (variant, own), model, kept = STEPS[definition], net(), {}
    optimizer = variant(model if variant is LSAM else model.parameters(), rho=RHO, lr=0.1, **own)
    for step, batch in enumerate(batches(7)):
        at = Batch(model, batch)
        w = at.w
        phantom, descent = definition(at, w, at(w), step, kept)
        advance(kind, optimizer, model, batch)
        torch.testing.assert_close((w - vector(model)) / 0.1, descent, rtol=1e-3, atol=1e-5)
        assert optimizer.phantom_norm == pytest.approx(0 if phantom is None else (phantom - w).norm().item(), rel=1e-4)


def test_every_variant_is_held_against_its_definition() -> None:
    assert set(CLASSES.values()) <= {variant for variant, _ in STEPS.values()}


def offsets(optimizer: SAM, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """epsilon of one batch, as one vector."""
    before = vector(model)
    model.zero_grad()
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    with optimizer.at_phantom():
        return vector(model) - before


def test_esam_perturbs_a_random_share_and_is_sams_ascent_on_average() -> None:
    model, (batch,) = net(), batches(1)
    sam = offsets(SAM(model.parameters(), rho=RHO), model, batch)
    seeds = range(400)
    draws = torch.stack([offsets(ESAM(model.parameters(), rho=RHO, beta=0.4, seed=k), model, batch) for k in seeds])
    moved = draws.abs() > 1e-7
    assert moved[:, sam.abs() > 1e-6].float().mean().item() == pytest.approx(0.4, abs=0.02)
    torch.testing.assert_close(draws[moved], (sam / 0.4).expand_as(draws)[moved], rtol=1e-3, atol=1e-6)
    assert ((draws.mean(0) - sam).norm() / sam.norm()).item() < 0.1


def test_esam_masks_another_share_at_every_step_and_leaves_torchs_generator_alone() -> None:
    model, (batch,) = net(), batches(1)
    optimizer, moved = ESAM(model.parameters(), rho=RHO, lr=0.0), []
    noise = torch.get_rng_state()
    for _ in range(3):
        moved.append(offsets(optimizer, model, batch) != 0)
        advance("esam", optimizer, model, batch)
    assert torch.equal(noise, torch.get_rng_state())
    assert not torch.equal(moved[0], moved[1]) and not torch.equal(moved[1], moved[2])


# An independent implementation: it has no ESAM and no weight decay inside the ascent.


def gsam_of(library, model: nn.Module):
    """Theirs; its radius follows the learning rate, and a schedule that stands still leaves it where it is."""
    base = SGD(model.parameters(), **MOMENTUM)
    constant = lr_scheduler.ConstantLR(base, factor=1.0)
    still = library.ProportionScheduler(constant, max_lr=0.05, min_lr=0.05, max_value=RHO, min_value=RHO)
    return library.GSAM(model.parameters(), base, model, still, alpha=0.4)


LOOK, NOISE = {"k": 3, "alpha": 0.7}, {"sigma": 1.0}
THEIRS = {  # ours, its base and settings; theirs
    "sam": (SAM, SGD, {}, lambda of, m: of.SAM(m.parameters(), SGD, rho=RHO, **MOMENTUM)),
    # theirs has T = |w| for weights and biases, without the eta of the paper
    "asam": (ASAM, SGD, {"eta": 0.0}, lambda of, m: of.SAM(m.parameters(), SGD, rho=RHO, adaptive=True, **MOMENTUM)),
    "adam": (SAM, Adam, {}, lambda of, m: of.SAM(m.parameters(), Adam, rho=RHO, lr=0.01)),
    "gsam": (GSAM, SGD, {"alpha": 0.4}, gsam_of),
    # theirs takes g_v and the norms tensor by tensor, the paper over all weights: one tensor is both
    "looksam": (LookSAM, SGD, LOOK, lambda of, m: of.LookSAM(m.parameters(), SGD, rho=RHO, **LOOK, **MOMENTUM)),
    # theirs takes out the average before this batch joins it: at sigma = 1 the same direction, since
    # g - m_t = lambda (g - m_t-1); but it starts from the first gradient, the paper's from 0
    "friendly": (
        FriendlySAM,
        SGD,
        NOISE | {"decay": 0.9},
        lambda of, m: of.FriendlySAM(m.parameters(), SGD, rho=RHO, lmbda=0.9, **NOISE, **MOMENTUM),
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_variants_agree_with_an_independent_implementation(name: str) -> None:
    library, (variant, base, own, theirs) = pytest.importorskip("pytorch_optimizer"), THEIRS[name]
    torch.manual_seed(0)
    layers = [nn.Linear(6, 3, bias=False)] if name == "looksam" else [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)]
    ours = nn.Sequential(*layers)
    other = copy.deepcopy(ours)
    optimizer = variant(ours.parameters(), base, RHO, **own, **(MOMENTUM if base is SGD else {"lr": 0.01}))
    reference = theirs(library, other)
    for step, (x, y) in enumerate(batches(7)):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            reference.zero_grad()
            loss = F.cross_entropy(other(x), y)
            loss.backward()
            return loss

        advance(name, optimizer, ours, (x, y))
        if name == "gsam":
            reference.set_closure(F.cross_entropy, x, y)
            reference.step()
        else:
            closure()  # their steps find the first gradient in place
            reference.step(closure)
        for p in other.parameters() if name == "friendly" and not step else ():
            reference.state[p]["momentum"].mul_(1 - 0.9)
    assert_close(ours, other, 1e-3, 1e-5)
