"""SAM and LSAM: what has to hold in every step, on a small conv net with batch norm."""

from __future__ import annotations

import copy
import io
import threading
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop, lr_scheduler

from lib.models import ConvNet, FeatureNet
from lib.optim import LSAM, SAM, unit

MOMENTUM = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
KINDS = ["SAM", "LSAM", "LSAM fused"]


class SmallNet(FeatureNet):
    """Two convolutions with batch norm, dropout, and a linear head: images (n, 1, 8, 8) to logits (n, 3)."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(6, affine=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(24, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


def net(seed: int = 0, dropout: float = 0.0) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet(dropout)


def batches(count: int, n: int = 12, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 1, 8, 8, generator=draw), torch.randint(3, (n,), generator=draw)) for _ in range(count)]


def closure_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return closure


def build(kind: str, model: nn.Module, **arguments) -> SAM:
    return SAM(model.parameters(), **arguments) if kind == "SAM" else LSAM(model, **arguments)


def advance(kind: str, optimizer: SAM, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    if kind == "LSAM fused":
        return optimizer.step_fused(batch[0], partial(F.cross_entropy, target=batch[1]))
    return optimizer.step(closure_of(model, batch))


def two_groups(model: SmallNet, body: dict, head: dict) -> list[dict]:
    parts = (model.body, body), (model.head, head)
    return [{"params": list(part.parameters()), **settings} for part, settings in parts]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_same_optimizer_state(first: Optimizer, second: Optimizer) -> None:
    ours, theirs = first.state_dict()["state"], second.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for number in ours:
        as_tensors = ({k: torch.as_tensor(v) for k, v in state[number].items()} for state in (ours, theirs))
        assert_same(*as_tensors)


# The phantom parameter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rho", [0.01, 0.3, 2.0])
def test_phantom_is_at_distance_rho(kind: str, rho: float) -> None:
    model = net()
    optimizer = build(kind, model, rho=rho, lr=0.05)
    for batch in batches(3):
        advance(kind, optimizer, model, batch)
        assert optimizer.phantom_norm == pytest.approx(rho, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    rho=st.floats(1e-3, 1e3),
    exponent=st.integers(-300, 290),
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
def test_phantom_is_at_distance_rho_whatever_the_size_of_the_gradient(rho, exponent, sizes, seed) -> None:
    torch.manual_seed(seed)
    params = [nn.Parameter(torch.randn(n, dtype=torch.float64)) for n in sizes]
    slopes = [torch.randn(n, dtype=torch.float64) * 10.0**exponent for n in sizes]
    optimizer = SAM(params, rho=rho, lr=0.0)

    def closure() -> Tensor:
        loss = sum((p * s).sum() for p, s in zip(params, slopes))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.phantom_norm == pytest.approx(rho, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=False), min_size=2))
def test_unit_vector_has_length_one_or_is_zero(values: list[float]) -> None:
    direction = unit([torch.tensor(values[:1]), torch.tensor(values[1:])])
    length = torch.cat(direction).double().norm().item()
    assert length == pytest.approx(1.0 if any(values) else 0.0, rel=1e-5)


def test_phantom_lies_along_the_gradient_of_the_loss() -> None:
    model, (batch,) = net(), batches(1)
    optimizer = SAM(model.parameters(), rho=0.2)
    before = snapshot(model)
    closure_of(model, batch)()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
    with optimizer.at_phantom():
        for name, p in model.named_parameters():
            torch.testing.assert_close(p, before[name] + 0.2 * gradients[name] / norm)


def test_only_the_given_parameters_are_perturbed_and_all_are_updated() -> None:
    model, (batch,) = net(), batches(1)
    chosen = [model.body[0].weight, model.head.bias]
    optimizer = SAM(model.parameters(), rho=0.4, perturb=chosen, lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    closure_of(model, batch)()
    with optimizer.at_phantom():
        moved = [p for p, b in zip(model.parameters(), before) if not torch.equal(p, b)]
        assert {id(p) for p in moved} == {id(p) for p in chosen}
        assert optimizer.phantom_norm == pytest.approx(0.4, rel=1e-5)
    optimizer.step(closure_of(model, batch))
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before))


@pytest.mark.parametrize("rho_body, rho_head", [(0.0, 0.3), (0.1, 0.3), (0.2, 0.0)])
def test_each_rho_has_its_own_distance(rho_body: float, rho_head: float) -> None:
    model, (batch,) = net(), batches(1)
    optimizer = SAM(two_groups(model, {"rho": rho_body}, {"rho": rho_head}), lr=0.1)
    before = snapshot(model)
    closure_of(model, batch)()
    with optimizer.at_phantom():
        for part, rho in (("body", rho_body), ("head", rho_head)):
            offsets = [p - before[name] for name, p in model.named_parameters() if name.startswith(part)]
            assert torch.cat([o.flatten() for o in offsets]).norm().item() == pytest.approx(rho, rel=1e-5)


def test_splitting_parameters_into_groups_of_equal_rho_changes_nothing() -> None:
    one, two = net(), net()
    whole = SAM(one.parameters(), rho=0.3, lr=0.1)
    split = SAM(two_groups(two, {}, {}), rho=0.3, lr=0.1)
    for batch in batches(3):
        whole.step(closure_of(one, batch))
        split.step(closure_of(two, batch))
    assert_same(snapshot(one), snapshot(two))


def test_head_group_alone_with_rho_is_lsam() -> None:
    one, two = net(), net()
    grouped = SAM(two_groups(one, {"rho": 0.0}, {}), rho=0.3, lr=0.1)
    lsam = LSAM(two, rho=0.3, lr=0.1)
    for batch in batches(3):
        grouped.step(closure_of(one, batch))
        lsam.step(closure_of(two, batch))
    assert_same(snapshot(one), snapshot(two))


# The step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "base, arguments",
    [
        (SGD, MOMENTUM),
        (SGD, {**MOMENTUM, "nesterov": True}),
        (Adam, {"lr": 0.01}),
        (AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (RMSprop, {"lr": 0.01}),
    ],
)
def test_rho_zero_is_the_base_optimizer_bit_for_bit(kind: str, base: type, arguments: dict) -> None:
    ours, theirs = net(dropout=0.3), net(dropout=0.3)
    optimizer = build(kind, ours, base=base, rho=0.0, **arguments)
    plain = base(theirs.parameters(), **arguments)
    torch.manual_seed(5)
    losses = [advance(kind, optimizer, ours, batch).item() for batch in batches(4)]
    noise = torch.get_rng_state()
    torch.manual_seed(5)
    for batch, loss in zip(batches(4), losses):
        plain.zero_grad()
        assert closure_of(theirs, batch)().item() == loss
        plain.step()
    assert_same(snapshot(ours), snapshot(theirs))
    assert_same_optimizer_state(optimizer, plain)
    assert torch.equal(noise, torch.get_rng_state()) and optimizer.phantom_norm == 0


@pytest.mark.parametrize("rho, evaluations", [(0.0, 1), (0.1, 2)])
def test_number_of_evaluations(rho: float, evaluations: int) -> None:
    model, (batch,) = net(), batches(1)
    calls, inner = [], closure_of(model, batch)
    SAM(model.parameters(), rho=rho).step(lambda: calls.append(1) or inner())
    assert len(calls) == evaluations


@pytest.mark.parametrize("kind", KINDS)
def test_step_returns_the_loss_at_the_unperturbed_point(kind: str) -> None:
    model, (batch,) = net(), batches(1)
    expected = F.cross_entropy(copy.deepcopy(model)(batch[0]), batch[1])
    assert torch.equal(advance(kind, build(kind, model, rho=5.0), model, batch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_restored_exactly(kind: str) -> None:
    model, (batch,) = net(), batches(1)
    before = [p.detach().clone() for p in model.parameters()]
    advance(kind, build(kind, model, rho=1e4, lr=0.0), model, batch)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before))


@pytest.mark.parametrize("kind", ["SAM", "LSAM"])
def test_second_evaluation_that_raises_leaves_weights_statistics_and_random_state(kind: str) -> None:
    model, (batch,) = net(dropout=0.5), batches(1)
    once = copy.deepcopy(model)
    torch.manual_seed(3)
    once(batch[0])
    noise = torch.get_rng_state()
    torch.manual_seed(3)
    calls, inner = [], closure_of(model, batch)

    def closure() -> Tensor:
        loss = inner()
        calls.append(loss)
        if len(calls) == 2:
            torch.rand(1)
            raise KeyboardInterrupt
        return loss

    with pytest.raises(KeyboardInterrupt):
        build(kind, model, rho=3.0, **MOMENTUM).step(closure)
    assert_same(snapshot(model), snapshot(once))
    assert torch.equal(torch.get_rng_state(), noise)


def test_weights_are_restored_when_the_fused_evaluation_raises() -> None:
    model, (batch,) = net(), batches(1)
    before, calls = [p.detach().clone() for p in model.parameters()], []

    def loss_function(logits: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("second evaluation")
        return F.cross_entropy(logits, batch[1])

    with pytest.raises(RuntimeError, match="second evaluation"):
        LSAM(model, rho=3.0).step_fused(batch[0], loss_function)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_statistics_advance_once_per_step_at_the_unperturbed_point(kind: str) -> None:
    model, (batch,) = net(), batches(1)
    once = copy.deepcopy(model)
    once(batch[0])
    advance(kind, build(kind, model, rho=2.0), model, batch)
    buffers = dict(model.named_buffers())
    assert_same(buffers, dict(once.named_buffers()))
    assert [int(b) for name, b in buffers.items() if name.endswith("num_batches_tracked")] == [1, 1]


def test_batch_norm_of_another_thread_is_left_alone() -> None:
    model, other, (batch,) = net(), net(1), batches(1)
    calls, inner = [], closure_of(model, batch)

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            thread = threading.Thread(target=other, args=(batch[0],))
            thread.start()
            thread.join()
        return inner()

    SAM(model.parameters(), rho=1.0).step(closure)
    assert int(other.body[1].num_batches_tracked) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_both_evaluations_share_their_dropout_masks_and_random_state_advances_once(kind: str) -> None:
    model, (batch,) = net(dropout=0.5), batches(1)
    masks = []
    model.head.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[0] == 0))
    torch.manual_seed(3)
    advance(kind, build(kind, model, rho=1e-6), model, batch)
    after_step = torch.get_rng_state()
    assert len(masks) == 2 and (masks[0] == masks[1]).float().mean() > 0.99
    torch.manual_seed(3)
    model(batch[0])
    assert torch.equal(after_step, torch.get_rng_state())


# Parameters without a gradient


class Branches(nn.Module):
    """Loss over `always` and, by turns, over `first` or `second`, whichever the pass uses."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.first, self.second, self.never = (nn.Parameter(torch.ones(3)) for _ in range(4))
        self.passes = 0

    def closure(self) -> Tensor:
        self.passes += 1
        loss = ((self.always * (self.first if self.passes % 2 else self.second)) ** 2).sum()
        loss.backward()
        return loss


def test_parameters_with_a_gradient_in_one_pass_are_restored_and_follow_the_second_pass() -> None:
    model = Branches()
    SAM(model.parameters(), rho=0.7, lr=0.1).step(model.closure)
    ones = torch.ones(3)
    assert torch.equal(model.never, ones)
    assert torch.equal(model.first, ones)  # perturbed in the first pass, no gradient in the second
    assert not torch.equal(model.second, ones) and not torch.equal(model.always, ones)


def test_frozen_parameters_stay_and_do_not_count_in_the_norm() -> None:
    model, (batch,) = net(), batches(1)
    model.body.requires_grad_(False)
    before = snapshot(model)
    optimizer = SAM(model.parameters(), rho=0.5, lr=0.1, weight_decay=0.1)
    optimizer.step(closure_of(model, batch))
    assert optimizer.phantom_norm == pytest.approx(0.5, rel=1e-5)
    assert all(torch.equal(p, before[f"body.{name}"]) for name, p in model.body.named_parameters())
    assert not torch.equal(model.head.weight, before["head.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_head_leaves_nothing_to_perturb_in_lsam_only(kind: str) -> None:
    model, (batch,) = net(), batches(1)
    model.head.requires_grad_(False)
    optimizer = build(kind, model, rho=0.5, lr=0.1)
    before = snapshot(model)
    advance(kind, optimizer, model, batch)
    assert torch.equal(model.head.weight, before["head.weight"])
    assert not torch.equal(model.body[0].weight, before["body.0.weight"])
    assert optimizer.phantom_norm == pytest.approx(0.5 if kind == "SAM" else 0.0, rel=1e-5)


def test_zero_gradient_gives_no_ascent_and_no_nan() -> None:
    p = nn.Parameter(torch.ones(4))
    optimizer = SAM([p], rho=0.5, lr=0.1, weight_decay=0.5)

    def closure() -> Tensor:
        loss = (p * 0).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.phantom_norm == 0
    torch.testing.assert_close(p.detach(), torch.full((4,), 0.95))  # by the base optimizer's weight decay


def test_sparse_gradients_and_empty_parameters_are_no_obstacle() -> None:
    words, empty = nn.Embedding(5, 3, sparse=True), nn.Parameter(torch.zeros(0))
    optimizer = SAM([words.weight, empty], rho=0.5, lr=0.1)
    before = words.weight.detach().clone()

    def closure() -> Tensor:
        loss = (words(torch.tensor([1, 3, 3])) ** 2).sum() + empty.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.phantom_norm == pytest.approx(0.5, rel=1e-5)
    assert (words.weight != before).any(dim=1).tolist() == [False, True, False, True, False]


def test_empty_parameter_is_no_obstacle_to_a_scaler() -> None:
    p, empty, scaler = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(0)), torch.amp.GradScaler("cpu")

    def closure() -> Tensor:
        loss = (p**2).sum() + empty.sum()
        scaler.scale(loss).backward()
        return loss

    SAM([p, empty], rho=0.5, lr=0.1).step(closure, scaler)
    assert not torch.equal(p, torch.ones(2))


# Living with the rest of torch


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base, arguments", [(SGD, MOMENTUM), (Adam, {"lr": 0.01})])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(kind: str, base: type, arguments: dict) -> None:
    data = batches(6)

    def start(seed: int) -> tuple[SmallNet, SAM, lr_scheduler.LRScheduler]:
        model = net(seed, dropout=0.3)
        optimizer = build(kind, model, base=base, rho=0.3, **arguments)
        return model, optimizer, lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)

    def run(parts: tuple, some: list) -> None:
        for batch in some:
            advance(kind, parts[1], parts[0], batch)
            parts[2].step()

    whole, half, resumed = start(0), start(0), start(7)
    torch.manual_seed(9)
    run(whole, data)
    torch.manual_seed(9)
    run(half, data[:3])
    saved = io.BytesIO()
    torch.save([part.state_dict() for part in half] + [torch.get_rng_state()], saved)
    saved.seek(0)
    *states, noise = torch.load(saved, weights_only=True)
    for part, state in zip(resumed, states):
        part.load_state_dict(state)
    torch.set_rng_state(noise)
    run(resumed, data[3:])
    assert_same(snapshot(whole[0]), snapshot(resumed[0]))
    assert_same_optimizer_state(whole[1], resumed[1])


def test_state_dict_holds_the_momentum_and_rho() -> None:
    model, (batch,) = net(), batches(1)
    optimizer = SAM(model.parameters(), rho=0.2, **MOMENTUM)
    optimizer.step(closure_of(model, batch))
    state = optimizer.state_dict()
    assert all("momentum_buffer" in s for s in state["state"].values())
    assert state["param_groups"][0]["rho"] == 0.2


def test_checkpoint_of_the_base_optimizer_alone_can_be_loaded() -> None:
    model = net()
    plain = SGD(model.parameters(), lr=0.3, momentum=0.9)
    optimizer = SAM(model.parameters(), rho=0.2, lr=0.1, momentum=0.9)
    optimizer.load_state_dict(plain.state_dict())
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"]) == (0.3, 0.2)
    assert optimizer.base.param_groups is optimizer.param_groups and optimizer.base.state is optimizer.state


@pytest.mark.parametrize("kind", KINDS)
def test_copied_model_and_optimizer_go_on_alike(kind: str) -> None:
    model, data = net(), batches(3)
    optimizer = build(kind, model, rho=0.2, **MOMENTUM)
    advance(kind, optimizer, model, data[0])
    model_copy, optimizer_copy = copy.deepcopy((model, optimizer))
    for batch in data[1:]:
        advance(kind, optimizer, model, batch)
        advance(kind, optimizer_copy, model_copy, batch)
    assert_same(snapshot(model), snapshot(model_copy))


SCHEDULERS = {
    "StepLR": partial(lr_scheduler.StepLR, step_size=2),
    "Cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=5),
    "OneCycle": partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=8),
    "Cyclic": partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2),
    "Lambda": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch)),
}


@pytest.mark.parametrize("kind", ["SAM", "LSAM fused"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_act_as_on_the_base_optimizer(kind: str, name: str) -> None:
    ours, theirs = net(), net()
    optimizer, plain = build(kind, ours, rho=0.0, **MOMENTUM), SGD(theirs.parameters(), **MOMENTUM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler, reference = SCHEDULERS[name](optimizer), SCHEDULERS[name](plain)
        for batch in batches(5):
            advance(kind, optimizer, ours, batch)
            plain.zero_grad()
            closure_of(theirs, batch)()
            plain.step()
            scheduler.step()
            reference.step()
            assert scheduler.get_last_lr() == reference.get_last_lr()
    assert_same(snapshot(ours), snapshot(theirs))


def test_plateau_scheduler_lowers_the_learning_rate() -> None:
    model, (batch,) = net(), batches(1)
    optimizer = SAM(model.parameters(), rho=0.1, lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    for _ in range(2):
        optimizer.step(closure_of(model, batch))
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == optimizer.base.param_groups[0]["lr"] == 0.05


def test_added_group_is_perturbed_and_updated() -> None:
    model, (batch,) = net(), batches(1)
    optimizer = SAM(model.head.parameters(), rho=0.2, **MOMENTUM)
    optimizer.add_param_group({"params": list(model.body.parameters()), "rho": 0.1, "lr": 0.01})
    before = snapshot(model)
    optimizer.step(closure_of(model, batch))
    assert optimizer.base.param_groups[1]["rho"] == 0.1 and optimizer.base.param_groups[1]["momentum"] == 0.9
    assert optimizer.phantom_norm == pytest.approx((0.2**2 + 0.1**2) ** 0.5, rel=1e-5)
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_accumulated_gradients_give_the_step_of_the_whole_batch() -> None:
    one, two, (batch,) = net().eval(), net().eval(), batches(1)
    whole, parts = SAM(one.parameters(), rho=0.5, lr=0.1), SAM(two.parameters(), rho=0.5, lr=0.1)

    def closure() -> Tensor:
        total = torch.zeros(())
        for x, y in zip(batch[0].split(3), batch[1].split(3)):
            loss = F.cross_entropy(two(x), y) / 4
            loss.backward()
            total += loss.detach()
        return total

    torch.testing.assert_close(parts.step(closure), whole.step(closure_of(one, batch)).detach())
    for p, q in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(p, q)


def test_accumulated_batches_each_advance_batch_norm_once() -> None:
    model, data = net(), batches(3)
    once = copy.deepcopy(model)
    for x, _ in data:
        once(x)
    SAM(model.parameters(), rho=0.5).step(lambda: [closure_of(model, batch)() for batch in data])
    assert_same(dict(model.named_buffers()), dict(once.named_buffers()))


@pytest.mark.parametrize("kind", KINDS)
def test_clipping_bounds_the_descent_and_leaves_the_ascent(kind: str) -> None:
    model, (batch,) = net(), batches(1)
    optimizer = build(kind, model, rho=0.5, clip_norm=0.01, lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    advance(kind, optimizer, model, batch)
    moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before)]).norm().item()
    assert optimizer.phantom_norm == pytest.approx(0.5, rel=1e-5)
    assert moved == pytest.approx(0.01, rel=1e-3)


def scaled_closure(
    model: nn.Module, batch: tuple[Tensor, Tensor], scaler: torch.amp.GradScaler, spoil: int | None = None
) -> Callable[[], Tensor]:
    """A closure that scales its loss for backward; evaluation number `spoil` gets an inf in its gradient."""
    calls = []

    def closure() -> Tensor:
        calls.append(1)
        with torch.autocast(batch[0].device.type, torch.float16, enabled=batch[0].is_cuda):
            loss = F.cross_entropy(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        if len(calls) == spoil:
            model.body[1].bias.grad[0] = torch.inf
        return loss

    return closure


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("fused", [False, True])
def test_scaled_loss_gives_the_unscaled_step(device: str, clip_norm: float | None, fused: bool) -> None:
    one, two = net().to(device), net().to(device)
    plain, scaled = (LSAM(m, rho=0.3, clip_norm=clip_norm, **MOMENTUM) for m in (one, two))
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    for x, y in batches(3):
        batch = x.to(device), y.to(device)
        plain.step(closure_of(one, batch))
        if fused:
            scaled.step_fused(batch[0], partial(F.cross_entropy, target=batch[1]), scaler)
        else:
            scaled.step(scaled_closure(two, batch, scaler), scaler)
        scaler.update()
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if device == "cpu" else {"rtol": 0.05, "atol": 0.01}
    for p, q in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(p, q, **tolerance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("spoil", [1, 2])
@pytest.mark.parametrize("kind", ["SAM", "LSAM"])
def test_overflow_in_either_pass_skips_the_update_and_lowers_the_scale(
    device: str, clip_norm: float | None, spoil: int, kind: str
) -> None:
    model, (batch,) = net().to(device), batches(1)
    batch = batch[0].to(device), batch[1].to(device)
    optimizer = build(kind, model, rho=0.3, clip_norm=clip_norm, **MOMENTUM)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step(scaled_closure(model, batch, scaler, spoil), scaler)
    scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before)) and not optimizer.state
    assert scaler.get_scale() == 2.0**9
    optimizer.step(scaled_closure(model, batch, scaler), scaler)
    scaler.update()
    assert not any(torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_disabled_scaler_is_no_scaler() -> None:
    one, two, (batch,) = net(), net(), batches(1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    SAM(one.parameters(), rho=0.3).step(closure_of(one, batch))
    SAM(two.parameters(), rho=0.3).step(scaled_closure(two, batch, scaler), scaler)
    assert_same(snapshot(one), snapshot(two))


def test_direction_of_half_precision_gradients_is_computed_in_single_precision() -> None:
    (direction,) = unit([torch.linspace(-1, 1, 999, dtype=torch.float16)])
    assert direction.double().norm().item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("model_dtype", [torch.bfloat16, torch.float64])
def test_other_float_types_are_perturbed_by_rho(model_dtype: torch.dtype) -> None:
    model, ((x, y),) = net().to(model_dtype), batches(1)
    optimizer = SAM(model.parameters(), rho=0.5)
    optimizer.step(closure_of(model, (x.to(model_dtype), y)))
    assert optimizer.phantom_norm == pytest.approx(0.5, rel=0.02 if model_dtype is torch.bfloat16 else 1e-12)


# Agreement


def conv_pair() -> tuple[ConvNet, ConvNet, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = ConvNet(3, in_channels=1, height=16, width=8)
    draw = torch.Generator().manual_seed(4)
    data = [(torch.randn(10, 1, 16, 8, generator=draw), torch.randint(3, (10,), generator=draw)) for _ in range(6)]
    return model, copy.deepcopy(model), data


def assert_close(first: nn.Module, second: nn.Module) -> None:
    for p, q in zip(first.parameters(), second.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_sam_agrees_with_an_independent_implementation(rho: float) -> None:
    theirs = pytest.importorskip("pytorch_optimizer")
    ours, other, data = conv_pair()
    optimizer = SAM(ours.parameters(), rho=rho, **MOMENTUM)
    reference = theirs.SAM(other.parameters(), SGD, rho=rho, **MOMENTUM)
    for batch in data:
        loss = optimizer.step(closure_of(ours, batch))
        reference.zero_grad()
        torch.testing.assert_close(loss, closure_of(other, batch)())
        reference.step(closure_of(other, batch))
    assert_close(ours, other)


@pytest.mark.parametrize("fused", [False, True])
def test_lsam_agrees_with_an_independent_implementation(fused: bool) -> None:
    theirs = pytest.importorskip("pytorch_optimizer")
    ours, other, data = conv_pair()
    optimizer = LSAM(ours, rho=0.5, **MOMENTUM)
    head = theirs.SAM(other.head.parameters(), SGD, rho=0.5, **MOMENTUM)
    body = SGD(other.body.parameters(), **MOMENTUM)
    for batch in data:
        advance("LSAM fused" if fused else "LSAM", optimizer, ours, batch)
        head.zero_grad()
        closure_of(other, batch)()

        def closure() -> Tensor:
            body.zero_grad()
            return closure_of(other, batch)()

        head.step(closure)
        body.step()
    assert_close(ours, other)


def test_fused_lsam_agrees_with_two_evaluations() -> None:
    one, two = net(dropout=0.3), net(dropout=0.3)
    fused, plain = LSAM(one, rho=0.5, **MOMENTUM), LSAM(two, rho=0.5, **MOMENTUM)
    for number, batch in enumerate(batches(6)):
        torch.manual_seed(number)
        loss = advance("LSAM fused", fused, one, batch)
        torch.manual_seed(number)
        torch.testing.assert_close(loss, advance("LSAM", plain, two, batch).detach())
    assert_close(one, two)


def test_fused_lsam_runs_the_body_once_forward_and_once_backward() -> None:
    model, (batch,) = net(), batches(1)
    passes: list[str] = []
    model.body[0].register_forward_hook(lambda *_: passes.append("forward"))
    model.body[0].register_full_backward_hook(lambda *_: passes.append("backward"))
    batch[0].requires_grad_()  # without it torch warns that the hook sees no gradient of the input
    advance("LSAM fused", LSAM(model, rho=0.5), model, batch)
    assert passes == ["forward", "backward"]


# Bad arguments


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"rho": -0.1}, "rho"),
        ({"rho": float("nan")}, "rho"),
        ({"rho": float("inf")}, "rho"),
        ({"rho": "0.1"}, "rho"),
        ({"rho": True}, "rho"),
        ({"base": SAM}, "base"),
        ({"base": "SGD"}, "base"),
        ({"base": torch.optim.LBFGS}, "base"),
        ({"ro": 0.1}, "base"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"clip_norm": float("nan")}, "clip_norm"),
        ({"perturb": []}, "perturb"),
        ({"perturb": [torch.ones(2)]}, "perturb"),
        ({"maximize": True}, "maximize"),
    ],
)
def test_bad_argument_is_one_line_that_names_it(arguments: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} [^\n]*$"):
        SAM(net().parameters(), **arguments)


def test_bad_group_rho_is_refused() -> None:
    model = net()
    with pytest.raises(ValueError, match="^rho must be"):
        SAM([{"params": list(model.parameters()), "rho": -1.0}])
    optimizer = SAM(model.head.parameters())
    with pytest.raises(ValueError, match="^rho must be"):
        optimizer.add_param_group({"params": list(model.body.parameters()), "rho": -1.0})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("closure", [None, 3])
def test_step_without_closure_is_refused(closure: object) -> None:
    with pytest.raises(ValueError, match="^closure must be"):
        SAM(net().parameters()).step(closure)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), None])
def test_lsam_refuses_a_model_without_features_and_head(model: object) -> None:
    with pytest.raises(ValueError, match="^model must have"):
        LSAM(model)
