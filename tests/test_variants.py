"""The variants of SAM: their own norms, exact restoration, the base optimizer at rho = 0, resuming, and
agreement with an independent implementation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer, lr_scheduler

from lib.models import FeatureNet
from lib.optim import ASAM, ESAM, GSAM, LSAM, SAM, VARIANTS, DecayedSAM, FriendlySAM, LookSAM
from lib.optim.variants import WITHOUT_RADIUS

MOMENTUM = {"lr": 0.05, "momentum": 0.9}
CLASSES = [ASAM, FriendlySAM, DecayedSAM, GSAM, LookSAM, ESAM]


class SmallNet(FeatureNet):
    """A convolution with batch norm, dropout, and a linear head: images (n, 1, 6, 6) to logits (n, 3)."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(36, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


def net(seed: int = 0, dropout: float = 0.0) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet(dropout)


def batches(count: int, n: int = 12) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 1, 6, 6, generator=draw), torch.randint(3, (n,), generator=draw)) for _ in range(count)]


def closure_of(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Callable[..., Tensor]:
    """The closure that this optimizer takes: ESAM's returns losses, all others' call backward."""

    def losses(which: Tensor | slice) -> Tensor:
        return F.cross_entropy(model(batch[0][which]), batch[1][which], reduction="none")

    def closure() -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return losses if isinstance(optimizer, ESAM) else closure


def advance(optimizer: Optimizer, model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    for batch in data:
        optimizer.zero_grad()
        optimizer.step(closure_of(model, batch, optimizer))


def gradient(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """The gradient at the model's weights; buffers are left as they are."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    F.cross_entropy(twin(batch[0]), batch[1]).backward()
    return {name: p.grad for name, p in twin.named_parameters()}


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors.values()])


def offsets(optimizer: SAM, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """epsilon of one batch, as one vector."""
    before = flat(weights(model))
    for p, g in zip(model.parameters(), gradient(model, batch).values()):
        p.grad = g
    with optimizer.at_phantom():
        return flat(weights(model)) - before


@contextmanager
def at_phantom(
    model: nn.Module, batch: tuple[Tensor, Tensor], variant: type[SAM] = SAM, **arguments
) -> Iterator[nn.Module]:
    """A copy of the model at the phantom of a batch."""
    twin = copy.deepcopy(model)
    for p, g in zip(twin.parameters(), gradient(twin, batch).values()):
        p.grad = g
    with variant(twin.parameters(), **arguments).at_phantom():
        yield twin


def assert_same(first: nn.Module, second: nn.Module) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def assert_close(first: nn.Module, second: nn.Module) -> None:
    for p, q in zip(first.parameters(), second.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


# The ascent: each in its own norm


@pytest.mark.parametrize("rho", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("variant", [FriendlySAM, DecayedSAM, GSAM, LookSAM])
def test_phantom_is_at_distance_rho(variant: type[SAM], rho: float) -> None:
    model = net()
    optimizer = variant(model.parameters(), rho=rho, **MOMENTUM)
    for number, batch in enumerate(batches(7)):
        advance(optimizer, model, [batch])
        between = variant is LookSAM and number % 5
        assert optimizer.phantom_norm == pytest.approx(0 if between else rho, rel=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.01, 1.0])
def test_asam_is_at_distance_rho_in_its_own_norm(eta: float) -> None:
    model, (batch,) = net(), batches(1)
    scale = flat(weights(model)).abs() + eta
    epsilon = offsets(ASAM(model.parameters(), rho=0.7, eta=eta), model, batch)
    moved = scale > 0
    assert (epsilon[moved] / scale[moved]).norm().item() == pytest.approx(0.7, rel=1e-4)
    g = flat(gradient(model, batch))
    torch.testing.assert_close(epsilon, 0.7 * scale**2 * g / (scale * g).norm(), rtol=1e-4, atol=1e-6)


def test_asam_ascent_does_not_see_how_two_layers_share_their_scale() -> None:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    two = copy.deepcopy(one)
    with torch.no_grad():
        two[0].weight.mul_(4)
        two[2].weight.div_(4)
    batch = torch.randn(9, 4), torch.randint(3, (9,))
    rises = []
    for model in (one, two):
        with at_phantom(model, batch, ASAM, rho=0.5, eta=0.0) as twin:
            rises.append(F.cross_entropy(twin(batch[0]), batch[1]).item())
    assert rises[0] == pytest.approx(rises[1], rel=1e-5)


def test_friendly_ascent_is_along_the_gradient_less_its_moving_average() -> None:
    model, data = net(), batches(4)
    optimizer = FriendlySAM(model.parameters(), rho=0.3, sigma=0.8, decay=0.7, lr=0.05)
    average = torch.zeros_like(flat(weights(model)))
    for batch in data:
        g = flat(gradient(model, batch))
        average = 0.7 * average + 0.3 * g
        noise = g - 0.8 * average
        torch.testing.assert_close(offsets(optimizer, model, batch), 0.3 * noise / noise.norm(), rtol=1e-3, atol=1e-5)
        advance(optimizer, model, [batch])


def test_first_friendly_step_is_sams() -> None:
    one, two, (batch,) = net(), net(), batches(1)
    advance(FriendlySAM(one.parameters(), rho=0.3, lr=0.05), one, [batch])
    advance(SAM(two.parameters(), rho=0.3, lr=0.05), two, [batch])
    assert_close(one, two)


def test_decayed_sam_is_sam_of_the_penalised_loss() -> None:
    one, two = net(), net()
    ours, penalised = (
        variant(m.parameters(), rho=0.4, **MOMENTUM, **others)
        for variant, m, others in ((DecayedSAM, one, {"decay": 0.2}), (SAM, two, {}))
    )
    for batch in batches(4):

        def closure() -> Tensor:
            penalty = sum((p**2).sum() for p in two.parameters())
            loss = F.cross_entropy(two(batch[0]), batch[1]) + 0.1 * penalty
            loss.backward()
            return loss

        advance(ours, one, [batch])
        penalised.step(closure)
    assert_close(one, two)


def test_weight_decay_outside_the_ascent_is_another_step_than_inside() -> None:
    inside, outside, (batch,) = net(), net(), batches(1)
    inner = DecayedSAM(inside.parameters(), rho=0.5, decay=0.2, lr=0.1)
    outer = SAM(outside.parameters(), rho=0.5, weight_decay=0.2, lr=0.1)
    advance(inner, inside, [batch])
    advance(outer, outside, [batch])
    assert (flat(weights(inside)) - flat(weights(outside))).norm() > 1e-3
    plain = offsets(SAM(outside.parameters(), rho=0.5), outside, batch)
    torch.testing.assert_close(offsets(outer, outside, batch), plain)  # the decay has no part in it


def test_esam_perturbs_a_random_share_and_is_sams_ascent_on_average() -> None:
    model, (batch,) = net(), batches(1)
    sam = offsets(SAM(model.parameters(), rho=0.5), model, batch)
    draws = torch.stack(
        [offsets(ESAM(model.parameters(), rho=0.5, beta=0.4, seed=seed), model, batch) for seed in range(400)]
    )
    moved = draws != 0
    assert moved[:, sam != 0].float().mean().item() == pytest.approx(0.4, abs=0.02)
    torch.testing.assert_close(draws[moved], (sam / 0.4).expand_as(draws)[moved], rtol=1e-3, atol=1e-6)
    assert ((draws.mean(0) - sam).norm() / sam.norm()).item() < 0.1


def test_esam_masks_another_share_at_every_step_and_leaves_torchs_generator_alone() -> None:
    model, (batch,) = net(), batches(1)
    optimizer = ESAM(model.parameters(), rho=0.5, lr=0.0)
    torch.manual_seed(3)
    noise = torch.get_rng_state()
    moved = []
    for _ in range(3):
        moved.append(offsets(optimizer, model, batch) != 0)
        advance(optimizer, model, [batch])
    assert torch.equal(noise, torch.get_rng_state())
    assert not torch.equal(moved[0], moved[1]) and not torch.equal(moved[1], moved[2])


def test_esam_descends_on_the_examples_whose_loss_rises_most() -> None:
    model, (batch,) = net().eval(), batches(1)
    optimizer = ESAM(model.parameters(), rho=0.5, beta=1.0, gamma=0.3, lr=1.0)
    before = F.cross_entropy(model(batch[0]), batch[1], reduction="none").detach()
    with at_phantom(model, batch, rho=0.5) as twin:
        rise = F.cross_entropy(twin(batch[0]), batch[1], reduction="none") - before
        chosen = rise.topk(4).indices  # 0.3 of 12, rounded up
        expected = flat(gradient(twin, (batch[0][chosen], batch[1][chosen])))
    start = flat(weights(model))
    advance(optimizer, model, [batch])
    torch.testing.assert_close(start - flat(weights(model)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "variant, arguments",
    [
        (GSAM, {"alpha": 0.0}),
        (LookSAM, {"k": 1}),
        (ESAM, {"beta": 1.0, "gamma": 1.0}),
        (FriendlySAM, {"sigma": 0.0}),
        (DecayedSAM, {"decay": 0.0}),
    ],
)
def test_variant_without_its_own_part_is_sam(variant: type[SAM], arguments: dict) -> None:
    ours, theirs, data = net(), net(), batches(4)
    advance(variant(ours.parameters(), rho=0.3, **arguments, **MOMENTUM), ours, data)
    advance(SAM(theirs.parameters(), rho=0.3, **MOMENTUM), theirs, data)
    assert_close(ours, theirs)


# The descent


def test_gsam_descends_without_the_part_of_the_gradient_orthogonal_to_the_phantoms() -> None:
    model, (batch,) = net(), batches(1)
    optimizer = GSAM(model.parameters(), rho=0.5, alpha=0.6, lr=1.0)
    g, start = flat(gradient(model, batch)), flat(weights(model))
    with at_phantom(model, batch, rho=0.5) as twin:
        phantom = flat(gradient(twin, batch))
    perpendicular = g - (g @ phantom) / (phantom @ phantom) * phantom
    assert perpendicular.norm() > 0.1 * g.norm()
    advance(optimizer, model, [batch])
    moved = start - flat(weights(model))
    torch.testing.assert_close(moved, phantom - 0.6 * perpendicular, rtol=1e-3, atol=1e-5)
    assert (moved @ phantom).item() == pytest.approx((phantom @ phantom).item(), rel=1e-3)


def test_looksam_keeps_the_phantoms_orthogonal_part_between_its_sam_steps() -> None:
    model, data = net(), batches(5)
    optimizer = LookSAM(model.parameters(), rho=0.5, k=3, alpha=0.7, lr=0.1)
    kept = None
    for number, batch in enumerate(data):
        g, start = flat(gradient(model, batch)), flat(weights(model))
        if number % 3 == 0:
            with at_phantom(model, batch, rho=0.5) as twin:
                expected = flat(gradient(twin, batch))
            kept = expected - (expected @ g) / (g @ g) * g
        else:
            expected = g + 0.7 * g.norm() / kept.norm() * kept
        advance(optimizer, model, [batch])
        torch.testing.assert_close((start - flat(weights(model))) / 0.1, expected, rtol=1e-3, atol=1e-4)


# Agreement with an independent implementation. It has no ESAM and no weight decay inside the ascent.


def theirs_steps(optimizer: Optimizer, model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    """Their steps take a closure for the second evaluation and find the first gradient in place."""
    for batch in data:

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            return loss

        closure()
        optimizer.step(closure)


def pair(*layers: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Twice the same net without batch norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), *(layers or (nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))))
    return model, copy.deepcopy(model)


@pytest.mark.parametrize(
    "variant, base, arguments, others, tolerance",
    [  # theirs has T = |w| for weights and biases, without the eta of the paper
        (ASAM, SGD, {"rho": 0.5, "eta": 0.0, **MOMENTUM}, {"rho": 0.5, "adaptive": True, **MOMENTUM}, 1e-6),
        (SAM, Adam, {"rho": 0.3, "lr": 0.01}, {"rho": 0.3, "lr": 0.01}, 1e-4),
    ],
)
def test_sam_and_asam_agree_with_an_independent_implementation(variant, base, arguments, others, tolerance) -> None:
    library = pytest.importorskip("pytorch_optimizer")
    (ours, other), data = pair(), batches(6)
    advance(variant(ours.parameters(), base, **arguments), ours, data)
    theirs_steps(library.SAM(other.parameters(), base, **others), other, data)
    for p, q in zip(ours.parameters(), other.parameters()):
        torch.testing.assert_close(p, q, rtol=10 * tolerance, atol=tolerance)


def test_gsam_agrees_with_an_independent_implementation() -> None:
    library = pytest.importorskip("pytorch_optimizer")
    (ours, other), data = pair(), batches(6)
    advance(GSAM(ours.parameters(), rho=0.3, alpha=0.4, **MOMENTUM), ours, data)
    base = SGD(other.parameters(), **MOMENTUM)
    # Their radius follows the learning rate; a schedule that stands still leaves it where it is.
    still = library.ProportionScheduler(
        lr_scheduler.ConstantLR(base, factor=1.0), max_lr=0.05, min_lr=0.05, max_value=0.3, min_value=0.3
    )
    reference = library.GSAM(other.parameters(), base, other, still, alpha=0.4)
    for batch in data:
        reference.set_closure(F.cross_entropy, *batch)
        reference.step()
    assert_close(ours, other)


def test_looksam_agrees_with_an_independent_implementation_on_one_tensor() -> None:
    # Theirs takes g_v and the norms tensor by tensor, the paper over all weights: one tensor is both.
    library = pytest.importorskip("pytorch_optimizer")
    data, apart = batches(7), []
    for layers in ([nn.Linear(36, 3, bias=False)], []):
        ours, other = pair(*layers)
        settings = {"rho": 0.5, "k": 3, "alpha": 0.7, **MOMENTUM}
        advance(LookSAM(ours.parameters(), **settings), ours, data)
        theirs_steps(library.LookSAM(other.parameters(), SGD, **settings), other, data)
        apart.append((flat(weights(ours)) - flat(weights(other))).norm().item())
    assert apart[0] < 1e-5 and apart[1] > 1e-3


def test_friendly_sam_agrees_with_an_independent_implementation_from_the_same_average() -> None:
    # Theirs takes out the average before this batch joins it: at sigma = 1 the same direction, since
    # g - m_t = lambda (g - m_t-1). But theirs starts from the first gradient, the paper's from 0.
    library = pytest.importorskip("pytorch_optimizer")
    ours, other = pair()
    first, *data = batches(7)
    reference = library.FriendlySAM(other.parameters(), SGD, rho=0.5, sigma=1.0, lmbda=0.9, **MOMENTUM)
    optimizer = FriendlySAM(ours.parameters(), rho=0.5, sigma=1.0, decay=0.9, **MOMENTUM)
    advance(optimizer, ours, [first])
    theirs_steps(reference, other, [first])
    assert_close(ours, other)
    for p in other.parameters():
        reference.state[p]["momentum"].mul_(1 - 0.9)
    advance(optimizer, ours, data)
    theirs_steps(reference, other, data)
    assert_close(ours, other)


# By name


@pytest.mark.parametrize("name", VARIANTS)
def test_every_named_method_trains_a_model(name: str) -> None:
    model, data = net(), batches(3)
    before = weights(model)
    rho = 0.0 if name in WITHOUT_RADIUS else 0.1
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
    optimizer = VARIANTS[name](model, rho, settings)
    advance(optimizer, model, data)
    assert all(not torch.equal(p, before[part]) for part, p in model.named_parameters())
    assert settings == {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
    moved = [group.get("rho", 0.0) for group in optimizer.param_groups]
    assert moved == [rho]


def test_named_lsam_moves_the_head_only() -> None:
    model, (batch,) = net(), batches(1)
    optimizer = VARIANTS["lsam"](model, 0.3, {"lr": 0.1})
    head = sum(p.numel() for p in model.head.parameters())
    assert isinstance(optimizer, LSAM) and not offsets(optimizer, model, batch)[:-head].any()


# Bad arguments


@pytest.mark.parametrize(
    "variant, arguments, name",
    [
        (ASAM, {"eta": -0.1}, "eta"),
        (ASAM, {"rho": -1.0}, "rho"),
        (FriendlySAM, {"sigma": -1.0}, "sigma"),
        (FriendlySAM, {"decay": 1.1}, "decay"),
        (DecayedSAM, {"decay": -0.1}, "decay"),
        (DecayedSAM, {"weight_decay": 0.1}, "weight_decay"),
        (GSAM, {"alpha": float("inf")}, "alpha"),
        (LookSAM, {"k": 0}, "k"),
        (ESAM, {"beta": 0.0}, "beta"),
        (ESAM, {"gamma": 1.5}, "gamma"),
        (ESAM, {"seed": -1}, "seed"),
    ],
)
def test_bad_argument_is_one_line_that_names_it(variant: type[SAM], arguments: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must [^\n]*$"):
        variant(net().parameters(), **arguments)


@pytest.mark.parametrize("variant", CLASSES)
def test_step_without_closure_is_refused(variant: type[SAM]) -> None:
    with pytest.raises(ValueError, match="^closure must be"):
        variant(net().parameters()).step(None)


def test_friendly_sam_refuses_a_scaler() -> None:
    with pytest.raises(ValueError, match="^scaler must be None"):
        FriendlySAM(net().parameters()).step(lambda: None, torch.amp.GradScaler("cpu"))
