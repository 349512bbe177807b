"""Every optimizer of `lib.optim` in every situation in which a wrapper around another optimizer can fail silently.

An optimizer that is listed in `VARIANTS` meets all of them. What is one variant's own: test_variants.py.
"""

from __future__ import annotations

import copy
import io
import threading
from collections import defaultdict
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizers import (
    CLASSES,
    KINDS,
    MOMENTUM,
    NAMES,
    SCALED,
    Net,
    advance,
    assert_close,
    assert_equal,
    batches,
    build,
    dropping,
    everything,
    net,
    one_process,
    weights,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import SGD, Adadelta, Adam, AdamW, RMSprop, SparseAdam, lr_scheduler

from lib.optim import ASAM, ESAM, GSAM, LSAM, SAM, DecayedSAM, FriendlySAM, LookSAM, unit
from lib.optim.variants import take_step


def norm(tensors: list[Tensor]) -> float:
    return torch.cat([t.detach().flatten() for t in tensors]).norm().item()


def moved(model: nn.Module, before: list[Tensor]) -> list[bool]:
    return [not torch.equal(p, b) for p, b in zip(model.parameters(), before)]


# The phantom parameter


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
    optimizer.step(lambda: sum((p * s).sum() for p, s in zip(params, slopes)).backward())
    assert optimizer.phantom_norm == pytest.approx(rho, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=False), min_size=2))
def test_unit_vector_has_length_one_or_is_zero(values: list[float]) -> None:
    direction = unit([torch.tensor(values[:1]), torch.tensor(values[1:])])
    length = torch.cat(direction).double().norm().item()
    assert length == pytest.approx(1.0 if any(values) else 0.0, rel=1e-5)


@pytest.mark.parametrize("dtype, rel", [(torch.bfloat16, 0.02), (torch.float64, 1e-12)])
def test_other_float_types_are_perturbed_by_rho(dtype: torch.dtype, rel: float) -> None:
    model, ((x, y),) = net().to(dtype), batches(1)
    optimizer = SAM(model.parameters(), rho=0.5)
    advance("sam", optimizer, model, (x.to(dtype), y))
    assert optimizer.phantom_norm == pytest.approx(0.5, rel=rel)
    half = unit([torch.linspace(-1, 1, 999, dtype=torch.float16)])  # computed in single precision
    assert norm(half) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("rho_body, rho_head", [(0.0, 0.3), (0.1, 0.3), (0.2, 0.0), (0.3, 0.3), (0.3, None)])
def test_phantom_lies_along_the_gradient_and_each_rho_has_its_own_norm(rho_body: float, rho_head: float) -> None:
    model, ((x, y),) = net(), batches(1)
    groups = [{"params": list(model.body.parameters()), "rho": rho_body}, {"params": list(model.head.parameters())}]
    if rho_head is not None:
        groups[1]["rho"] = rho_head
    optimizer, rho_head = SAM(groups, rho=0.7, lr=0.1), 0.7 if rho_head is None else rho_head
    before = weights(model)
    F.cross_entropy(model(x), y).backward()
    parts = [(rho_body, list(range(4))), (rho_head, [4, 5])]
    if rho_body == rho_head:
        parts = [(rho_body, list(range(6)))]
    with optimizer.at_phantom():
        for rho, numbers in parts:
            params = [list(model.parameters())[i] for i in numbers]
            length = norm([p.grad for p in params])
            for i, p in zip(numbers, params):
                torch.testing.assert_close(p.detach(), before[i] + rho * p.grad / length)
    assert_equal(weights(model), before)


@pytest.mark.parametrize("name", CLASSES)
def test_only_the_given_parameters_are_perturbed_and_all_are_updated(name: str) -> None:
    model, (batch,) = net(nn.Identity), batches(1)
    chosen = [model.body[0].weight, model.head.bias]
    optimizer = CLASSES[name](model.parameters(), rho=0.4, perturb=chosen, lr=0.1)
    before = weights(model)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    with optimizer.at_phantom():
        assert moved(model, before) == [True, False, False, True]
    advance(name, optimizer, model, batch)
    assert all(moved(model, before))


def test_a_group_that_is_added_shares_the_norm_of_its_rho() -> None:
    one, other = net(), net()
    whole, split = SAM(one.parameters(), rho=0.3, lr=0.1), SAM(other.body.parameters(), rho=0.3, lr=0.1)
    split.add_param_group({"params": list(other.head.parameters())})
    for batch in batches(3):
        advance("sam", whole, one, batch)
        advance("sam", split, other, batch)
    assert_equal(everything(one), everything(other))


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_head_leaves_nothing_to_perturb_in_lsam_only(kind: str) -> None:
    model, (batch,) = net(), batches(1)
    model.head.requires_grad_(False)
    optimizer, before = build(kind, model), weights(model)
    advance(kind, optimizer, model, batch)
    assert moved(model, before) == [True] * 4 + [False] * 2
    assert (optimizer.phantom_norm > 0) == ("lsam" not in kind)


def test_zero_gradient_gives_no_ascent_and_no_nan() -> None:
    p = nn.Parameter(torch.ones(4))
    optimizer = SAM([p], rho=0.5, lr=0.1, weight_decay=0.5)
    optimizer.step(lambda: (p * 0).sum().backward())
    assert optimizer.phantom_norm == 0
    torch.testing.assert_close(p.detach(), torch.full((4,), 0.95))  # by the base optimizer's weight decay


# The step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "base, arguments", [(SGD, MOMENTUM | {"nesterov": True}), (Adam, {}), (AdamW, {"weight_decay": 0.0}), (RMSprop, {})]
)
def test_rho_zero_is_the_base_optimizer_bit_for_bit(kind: str, base: type, arguments: dict) -> None:
    if base is SGD and kind == "sam_adam":
        pytest.skip("it has another base")
    ours, theirs = net(dropping), net(dropping)
    optimizer = build(kind, ours, 0.0, base, **arguments)
    plain = base(theirs.parameters(), **{"lr": 0.01} | arguments)
    torch.manual_seed(5)
    losses = [advance(kind, optimizer, ours, batch).item() for batch in batches(4)]
    noise = torch.get_rng_state()
    torch.manual_seed(5)
    for (x, y), loss in zip(batches(4), losses):
        plain.zero_grad()
        found = F.cross_entropy(theirs(x), y)
        found.backward()
        assert loss == (pytest.approx(found.item()) if kind == "esam" else found.item())  # it averages by itself
        plain.step()
    assert_equal(everything(ours), everything(theirs))
    assert optimizer.base.state_dict()["state"].keys() == plain.state_dict()["state"].keys()
    assert torch.equal(noise, torch.get_rng_state()) and optimizer.phantom_norm == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_returns_the_loss_at_the_weights_restores_them_and_draws_once(kind: str) -> None:
    model, (batch,) = net(dropping), batches(1)
    same, before = copy.deepcopy(model), weights(model)
    torch.manual_seed(3)
    loss = advance(kind, build(kind, model, 1e4, lr=0.0), model, batch)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    torch.testing.assert_close(loss, F.cross_entropy(same(batch[0]), batch[1]))
    assert not any(moved(model, before))
    assert kind == "esam" or torch.equal(after, torch.get_rng_state())
    assert_equal(list(model.buffers()), list(same.buffers()))


@pytest.mark.parametrize("rho, evaluations", [(0.0, 1), (0.1, 2)])
def test_number_of_evaluations_and_their_dropout(rho: float, evaluations: int) -> None:
    model, (batch,) = net(dropping), batches(1)
    masks: list[Tensor] = []
    model.body[2].register_forward_pre_hook(lambda _, inputs: masks.append(inputs[0] == 0))
    advance("sam", SAM(model.parameters(), rho=rho * 1e-5), model, batch)
    assert len(masks) == evaluations and torch.equal(masks[0], masks[-1])


def test_fused_lsam_runs_the_body_once_forward_and_once_backward() -> None:
    model, (batch,) = net(), batches(1)
    passes: list[str] = []
    model.body[0].register_forward_hook(lambda *_: passes.append("forward"))
    model.body[0].register_full_backward_hook(lambda *_: passes.append("backward"))
    batch[0].requires_grad_()  # without it torch warns that the hook sees no gradient of the input
    advance("lsam fused", LSAM(model, rho=0.5), model, batch)
    assert passes == ["forward", "backward"]


def test_accumulated_gradients_give_the_step_of_the_whole_batch() -> None:
    one, two, (batch,) = net().eval(), net().eval(), batches(1)
    whole, accumulated = (SAM(model.parameters(), rho=0.5, lr=0.1) for model in (one, two))

    def accumulate() -> Tensor:
        losses = [F.cross_entropy(two(x), y) / 2 for x, y in zip(batch[0].split(5), batch[1].split(5))]
        for loss in losses:
            loss.backward()
        return sum(losses).detach()

    F.cross_entropy(two(batch[0]), batch[1]).backward()  # what was accumulated before the step is dropped
    torch.testing.assert_close(accumulated.step(accumulate), advance("sam", whole, one, batch).detach())
    assert_close(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_clipping_bounds_the_descent_and_leaves_the_ascent(kind: str) -> None:
    found = []
    for clip_norm in (None, 0.01):
        model, (batch,) = net(), batches(1)
        others = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0} | ({"clip_norm": clip_norm} if clip_norm else {})
        optimizer, before = build(kind, model, **others), weights(model)
        advance(kind, optimizer, model, batch)
        found.append((optimizer.phantom_norm, norm([p - b for p, b in zip(model.parameters(), before)])))
    assert found[0][0] == found[1][0] and found[0][1] > 0.1
    assert "adam" in kind or found[1][1] == pytest.approx(0.01, rel=1e-3)


# At w~ nothing of w is used


class CastInside(Net):
    cache = True

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=self.cache):
            return super().forward(x).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["in the net", "around the step", "with a scaler"])
def test_autocast_evaluates_the_phantom_with_the_phantoms_weights(kind: str, where: str) -> None:
    found = []
    dtype = torch.float16 if where == "with a scaler" else torch.bfloat16
    for cache in (True, False):
        torch.manual_seed(0)
        model = CastInside() if where == "in the net" else Net()
        model.cache = cache
        scaled = where == "with a scaler" and kind in SCALED
        optimizer, scaler = build(kind, model), torch.amp.GradScaler("cpu", init_scale=2.0**6) if scaled else None
        for batch in batches(2):
            with torch.autocast("cpu", dtype, enabled=where != "in the net", cache_enabled=cache):
                advance(kind, optimizer, model, batch, scaler)
            if scaler is not None:
                scaler.update()
        found.append(weights(model))
    assert_equal(*found)


def test_fused_step_without_gradients_outside_is_the_same_step() -> None:
    found = []
    for context in (torch.no_grad, torch.enable_grad):
        model = net()
        with context():
            advance("lsam fused", build("lsam", model), model, batches(1)[0])
        found.append(weights(model))
    assert_equal(*found)


class OwnStatistics(nn.Module):
    """Batch norm by its function, and a counter: buffers that no layer type gives away."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "variance", "seen"):
            self.register_buffer(name, torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1  # another tensor each time
        return F.batch_norm(x, self.mean, self.variance, training=True)


PARTS = {
    "batch norm": lambda: nn.BatchNorm1d(8),
    "own statistics": OwnStatistics,
    "spectral norm": lambda: spectral_norm(nn.Linear(8, 8)),
    "observer": lambda: torch.ao.quantization.MovingAverageMinMaxObserver(),
    "script": lambda: torch.jit.script(nn.BatchNorm1d(8)),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", [*NAMES, "without the model"])
@pytest.mark.parametrize("part", PARTS)
def test_buffers_change_once_a_step_as_in_a_forward_pass_at_the_weights(name: str, part: str) -> None:
    if (name, part) == ("without the model", "script"):
        pytest.skip("no hook sees it")
    model, (batch,) = net(PARTS[part]), batches(1)
    same = copy.deepcopy(model)
    same(batch[0])
    optimizer = build(name, model) if name in NAMES else SAM(model.parameters(), rho=0.5, lr=0.1)
    take_step(model, optimizer, *batch)
    assert_equal(list(model.buffers()), list(same.buffers()))


@pytest.mark.parametrize("how", ["compiled loss", "fullgraph"])
def test_buffers_of_a_compiled_model_change_once_where_the_model_is_given(how: str) -> None:
    model, (batch,) = net(), batches(1)
    optimizer = SAM(model.parameters(), rho=0.5, lr=0.1, model=model)
    if how == "fullgraph":
        model.compile(backend="eager", fullgraph=True)
    loss = torch.compile(lambda x: model(x).square().sum(), backend="eager")
    evaluate = loss if how == "compiled loss" else lambda x: model(x).square().sum()
    optimizer.step(lambda: evaluate(batch[0]).backward())
    assert int(model.body[1].num_batches_tracked) == 1
    torch._dynamo.reset()


def test_batch_norm_of_another_thread_is_left_alone() -> None:
    model, other, (batch,) = net(), net(seed=1), batches(1)
    calls = []

    def closure() -> None:
        calls.append(1)
        if len(calls) == 2:
            thread = threading.Thread(target=other, args=(batch[0],))
            thread.start()
            thread.join()
        model(batch[0]).sum().backward()

    SAM(model.parameters(), rho=1.0).step(closure)
    assert int(other.body[1].num_batches_tracked) == 1


# Nothing is remembered of a step that was not taken


@pytest.mark.parametrize("base", [SGD, Adam])
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("how", ["overflow", "error"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbed_step_leaves_later_steps_as_if_it_had_not_been(kind: str, how: str, at: int, base: type) -> None:
    if how == "overflow" and kind not in SCALED:
        pytest.skip("it refuses a scaler")
    found = []
    for before in (0, 1, 3):  # undisturbed steps before
        if kind == "looksam" and before and at == 2:
            continue  # it evaluates once only there
        for disturbed in (False, True):
            model = net(dropping)
            optimizer = build(kind, model, base=base)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6) if how == "overflow" else None
            for number, batch in enumerate(batches(7)):
                if disturbed and number == before:
                    same, noise = copy.deepcopy(model), torch.get_rng_state()
                    model.head.fail(at, how)
                    try:
                        advance(kind, optimizer, model, batches(8)[7], scaler)
                    except ArithmeticError:
                        assert how == "error"
                    assert model.head.calls == at or how == "error"  # no ascent without a direction
                    model.head.fail(0, "")
                    if at == 2 and kind != "esam":  # one forward pass at w did take place
                        after = torch.get_rng_state()
                        torch.set_rng_state(noise)
                        same(batches(8)[7][0])
                        assert torch.equal(after, torch.get_rng_state())
                        assert_equal(list(model.buffers()), list(same.buffers()))
                    model.load_state_dict(dict(model.state_dict()) | dict(same.named_buffers()))
                    torch.set_rng_state(noise)
                    if scaler is not None:
                        scaler.update()
                        assert scaler.get_scale() == 2.0**5
                advance(kind, optimizer, model, batch, scaler)
                if scaler is not None:
                    scaler.update()
            found.append(weights(model))
        assert_equal(found[-2], found[-1])


class Sometimes(nn.Module):
    """Uses its second weight in some of its evaluations only, and its third in none."""

    def __init__(self, when: int) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(6, 3) for _ in range(3))
        self.when, self.calls = when, 0

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.calls += 1
        return self.first(x) + (self.second(x) if self.calls == self.when else 0)


@pytest.mark.parametrize("base", [SGD, Adam, AdamW])
@pytest.mark.parametrize("when", [1, 2])
@pytest.mark.parametrize("name", CLASSES)
def test_a_parameter_with_a_gradient_in_one_pass_is_restored_and_follows_the_second(name, when, base) -> None:
    torch.manual_seed(0)
    model = Sometimes(when)
    others = {"weight_decay": 0.0} if base is AdamW else {}
    optimizer, before = CLASSES[name](model.parameters(), base, 0.3, lr=0.01, **others), weights(model)
    for number, batch in enumerate(batches(12)):
        model.calls %= 2
        advance(name, optimizer, model, batch)
        if not number:
            assert moved(model, before)[:2] == [True] * 2 and moved(model, before)[2:4] == [when == 2] * 2
    assert all(p.isfinite().all() for p in model.parameters()) and not any(moved(model, before)[4:])


# Groups, state and checkpoints


@pytest.mark.parametrize("name, value", [("rho", float("nan")), ("rho", -1), ("rho", float("inf")), ("maximize", True)])
@pytest.mark.parametrize("when", ["at first", "added", "assigned", "as a whole"])
def test_a_group_that_makes_no_sense_is_refused_whenever_it_comes(name: str, value: object, when: str) -> None:
    model, (batch,) = net(), batches(1)
    good, bad = {"params": list(model.body.parameters())}, {"params": list(model.head.parameters()), name: value}
    before = weights(model)
    with pytest.raises(ValueError, match=f"{name} must be"):
        optimizer = SAM([good, bad] if when == "at first" else [good], lr=0.1)
        if when == "added":
            optimizer.add_param_group(bad)
        elif when == "as a whole":
            optimizer.param_groups = [{**optimizer.param_groups[0], name: value}]
        else:
            optimizer.param_groups[0][name] = value
        advance("sam", optimizer, model, batch)
    assert_equal(before, weights(model))


@pytest.mark.parametrize("variant", [GSAM, LookSAM])
def test_alpha_of_the_variant_and_of_rmsprop_are_two(variant: type[SAM]) -> None:
    model = net()
    optimizer = variant(model.body.parameters(), RMSprop, alpha=0.3, lr=0.01)
    optimizer.add_param_group({"params": model.head.parameters()})
    assert [group["alpha"] for group in optimizer.param_groups] == [0.99, 0.99] and optimizer.alpha == 0.3


@pytest.mark.parametrize("kind", NAMES)
def test_groups_and_state_stay_the_bases_whoever_replaces_them(kind: str) -> None:
    model, data = net(), batches(3)
    optimizer = build(kind, model)
    advance(kind, optimizer, model, data[0])
    optimizer.base.load_state_dict(copy.deepcopy(optimizer.base.state_dict()))
    assert optimizer.param_groups is optimizer.base.param_groups and optimizer.state is optimizer.base.state
    assert len(optimizer.state_dict()["state"]) == len(list(model.parameters()))
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    optimizer.state = defaultdict(dict)
    assert optimizer.base.state is optimizer.state and not optimizer.state_dict()["state"]
    scheduler, rate = lr_scheduler.StepLR(optimizer, 1, 0.1), optimizer.param_groups[0]["lr"]
    advance(kind, optimizer, model, data[1])
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.1 * rate)
    assert len(optimizer.base.state) == len(list(model.parameters()))


@pytest.mark.parametrize("kind", NAMES)
def test_a_checkpoint_of_another_base_is_refused_and_changes_nothing(kind: str) -> None:
    model, other, (batch,) = net(), net(), batches(1)
    optimizer = build(kind, model)
    advance(kind, optimizer, model, batch)
    foreign = (SGD if "adam" in kind else Adam)(other.parameters(), lr=0.7)
    F.cross_entropy(other(batch[0]), batch[1]).backward()
    foreign.step()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="state_dict must be of"):
        optimizer.load_state_dict(foreign.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"] and after["state"].keys() == before["state"].keys()
    own = type(optimizer.base)(other.parameters(), lr=0.3)
    optimizer.load_state_dict(own.state_dict())  # the base's own is welcome
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"]) == (0.3, 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [SGD, Adam])
def test_resumed_run_and_copy_equal_the_uninterrupted_one_bit_for_bit(kind: str, base: type) -> None:
    def start(seed: int) -> tuple[Net, SAM, lr_scheduler.LRScheduler]:
        model = net(dropping, seed)
        optimizer = build(kind, model, 0.3, base)
        return model, optimizer, lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)

    def run(model: Net, optimizer: SAM, scheduler: lr_scheduler.LRScheduler | None, some: list) -> list[Tensor]:
        torch.manual_seed(9)
        for batch in some:
            advance(kind, optimizer, model, batch)
            if scheduler is not None:
                scheduler.step()
        return [*everything(model), *(torch.as_tensor(v) for of in optimizer.state.values() for v in of.values())]

    data, whole, resumed = batches(8), start(0), start(7)
    run(*whole, data[:3])
    saved = io.BytesIO()
    torch.save([part.state_dict() for part in whole], saved)
    saved.seek(0)
    for part, state in zip(resumed, torch.load(saved, weights_only=True)):
        part.load_state_dict(state)
    assert (whole[1].steps, resumed[1].steps) == (3, 3)
    copied = *copy.deepcopy(whole[:2]), None
    assert_equal(run(*copied, data[3:4]), run(*whole, data[3:4]))
    run(*resumed, data[3:4])
    assert_equal(run(*whole, data[4:]), run(*resumed, data[4:]))


@pytest.mark.parametrize("kind", NAMES)
def test_hooks_fire_once_a_step(kind: str) -> None:
    SAM(net().parameters(), lr=0.1)  # torch wraps the step of a class when it first meets one
    model, (batch,) = net(), batches(1)
    optimizer, fired = build(kind, model), []
    optimizer.register_step_pre_hook(lambda *_: fired.append("before"))
    optimizer.register_step_post_hook(lambda *_: fired.append("after"))
    advance(kind, optimizer, model, batch)
    assert fired == ["before", "after"]


# A scaler


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
)
@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("kind", SCALED)
def test_scaled_loss_gives_the_unscaled_step(device: str, clip_norm: float | None, kind: str) -> None:
    one, two = net().to(device), net().to(device)
    plain, scaled = (build(kind, model, 0.3, **{"clip_norm": clip_norm} if clip_norm else {}) for model in (one, two))
    scaler, off = torch.amp.GradScaler(device, init_scale=2.0**10), torch.amp.GradScaler(device, enabled=False)
    for x, y in batches(3):
        batch = x.to(device), y.to(device)
        advance(kind, plain, one, batch, off)  # a disabled scaler is no scaler
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            advance(kind, scaled, two, batch, scaler)
        scaler.update()
    assert_close(one, two, *((1e-4, 1e-5) if device == "cpu" else (0.05, 0.01)))


def test_empty_parameter_is_no_obstacle_to_a_scaler() -> None:
    p, empty, scaler = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(0)), torch.amp.GradScaler("cpu")
    SAM([p, empty], rho=0.5, lr=0.1).step(lambda: scaler.scale((p**2).sum() + empty.sum()).backward(), scaler)
    assert not torch.equal(p, torch.ones(2))


@pytest.mark.parametrize("kind", [name for name in NAMES if name in SCALED])
def test_a_scaler_that_calls_the_step_itself_is_refused(kind: str) -> None:
    model, (batch,) = net(), batches(1)
    optimizer, scaler = build(kind, model), torch.amp.GradScaler("cpu", init_scale=4.0)
    before = weights(model)
    scaler.scale(F.cross_entropy(model(batch[0]), batch[1])).backward()
    with pytest.raises(ValueError, match=r"scaler must be given to step\(closure, scaler\)"):
        scaler.step(optimizer, lambda: None)
    assert_equal(before, weights(model))


# Gradients of other kinds


@pytest.mark.parametrize("base", [SGD, SparseAdam])
@pytest.mark.parametrize("name", [name for name in CLASSES if name != "sam_decay_inside"])
def test_sparse_gradients_are_taken(name: str, base: type) -> None:
    torch.manual_seed(0)
    model = nn.EmbeddingBag(12, 3, sparse=True)
    optimizer = CLASSES[name](model.parameters(), base, 0.3, lr=0.05)
    before = weights(model)
    for _ in range(7):
        advance(name, optimizer, model, (torch.tensor([[1, 2], [4, 5]]), torch.tensor([0, 2])))
    assert not torch.equal(before[0], weights(model)[0])
    if base is SparseAdam:  # touches the rows that were looked up, and no others
        assert torch.equal(before[0][[0, 3, 6, 7]], weights(model)[0][[0, 3, 6, 7]])


class Complex(nn.Module):
    def __init__(self, real: bool) -> None:
        super().__init__()
        start = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(start if real else torch.view_as_complex(start))
        self.real = real

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.view_as_complex(self.weight) if self.real else self.weight
        return (x.to(weight.dtype) @ weight).abs()


@pytest.mark.parametrize("name", ["sam", "gsam", "looksam", "friendly"])
def test_complex_parameters_are_trained_as_their_real_and_imaginary_parts(name: str) -> None:
    found = []
    for real in (True, False):
        model = Complex(real)
        optimizer = CLASSES[name](model.parameters(), SGD, 0.3, lr=0.05)
        for batch in batches(7):
            advance(name, optimizer, model, batch)
        found.append(model.weight.detach() if real else torch.view_as_real(model.weight.detach()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


# What is refused


class NeedsClosure(SGD):
    def step(self, closure):
        return super().step(closure)


def sam(**arguments) -> SAM:
    return SAM(net().parameters(), **arguments)


def shared() -> Net:
    """A head that has a weight of the body."""
    model = net(lambda: nn.Linear(8, 8))
    model.head = nn.Linear(8, 8)
    model.head.weight = model.body[1].weight
    return model


NAN, INFINITY = float("nan"), float("inf")
REFUSED = {  # arguments of SAM, and calls
    "rho must": [{"rho": -0.1}, {"rho": NAN}, {"rho": True}, lambda: ASAM(net().parameters(), rho=-1.0)],
    "base must": [{"base": base} for base in (SAM, "SGD", torch.optim.LBFGS, NeedsClosure, Adadelta)],
    "base refuses": [{"ro": 0.1}],
    "clip_norm must": [{"clip_norm": 0}, {"clip_norm": NAN}],
    "perturb must": [{"perturb": []}, {"perturb": [torch.ones(2)]}],
    "maximize must": [{"maximize": True}],
    "model must be": [{"per_rank": True}],
    "model must have": [lambda: LSAM(nn.Linear(2, 2)), lambda: LSAM(None)],
    "model must not share": [lambda: advance("lsam fused", LSAM(shared()), shared(), batches(1)[0])],
    "closure must": [lambda: sam().step(None), lambda: sam().step(3)],
    "scaler must be None": [lambda: FriendlySAM(net().parameters()).step(print, torch.amp.GradScaler("cpu"))],
    "weight_decay must be 0": [
        lambda: DecayedSAM(net().parameters(), AdamW),
        lambda: DecayedSAM(net().parameters(), weight_decay=0.1),
        lambda: DecayedSAM([{"params": list(net().parameters()), "weight_decay": 0.1}]),
    ],
}
OWN = {  # settings of the variants: what is refused, and a border that is not
    ASAM: {"eta": ([-0.1], 0)},
    FriendlySAM: {"sigma": ([-1.0], 0), "decay": ([-0.1, 1.1], 1)},
    DecayedSAM: {"decay": ([-0.1], 0)},
    GSAM: {"alpha": ([INFINITY, -1], 0)},
    LookSAM: {"k": ([0, 1.5], 1), "alpha": ([-1], 0)},
    ESAM: {"beta": ([0.0], 1), "gamma": ([0.0, 1.5], 1), "seed": ([-1], 0)},
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_argument_is_one_line_that_names_it(words: str, refuses) -> None:
    for one in REFUSED[words]:
        refuses(ValueError, partial(sam, **one) if isinstance(one, dict) else one, match=f"^{words}")


@pytest.mark.parametrize("variant", OWN)
def test_settings_of_a_variant_are_checked_and_are_none_of_a_group(variant: type[SAM], refuses) -> None:
    model = net()
    good, late = ({"params": list(part.parameters())} for part in (model.body, model.head))
    variant([good], **{name: border for name, (_, border) in OWN[variant].items()})
    for name, (bad, _) in OWN[variant].items():
        for value in bad:
            refuses(ValueError, variant, [good], **{name: value}, match=f"^{name} must")
        words = f"{name} must be given to {variant.__name__}"
        refuses(ValueError, variant, [good, late | {name: 0.5}], match=words)
        refuses(ValueError, variant([good]).add_param_group, late | {name: 0.5}, match=words)


class TwoModes(SGD):
    mode = "train"

    def eval(self) -> None:
        self.mode = "eval"


def test_modes_of_the_base_can_be_set_through_it_and_nothing_is_made_up() -> None:
    optimizer = SAM(net().parameters(), TwoModes)
    optimizer.eval()
    assert optimizer.base.mode == "eval" and not hasattr(SAM(net().parameters()), "eval")


# Two processes

OVERFLOW = ("sam", "looksam")


def _train_in_two(rank: int, store: str, queue) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        found = {}
        for name in (*CLASSES, "lsam"):
            for per_rank in (False, True):
                for overflow in (False, True)[: 1 + (name in OVERFLOW)]:
                    found[name, per_rank, overflow] = _trained(rank, name, per_rank, overflow)
        queue.put((rank, found))
    finally:
        torch.distributed.destroy_process_group()


def _trained(rank: int, name: str, per_rank: bool, overflow: bool) -> list[list]:
    model = net(nn.Identity)
    wrapped = nn.parallel.DistributedDataParallel(model)
    others = {"rho": 0.5, "lr": 0.1, "per_rank": per_rank}
    optimizer = (
        LSAM(wrapped, **others) if name == "lsam" else CLASSES[name](model.parameters(), model=wrapped, **others)
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0) if overflow else None
    for number, (x, y) in enumerate(batches(7)):
        if overflow and number == 5 and rank == 0:
            model.head.fail(1, "overflow")
        advance(name, optimizer, wrapped, (x[rank::2], y[rank::2]), scaler)
        if scaler is not None:
            scaler.update()
    return [p.tolist() for p in weights(model)]


@pytest.fixture(scope="module")
def in_two(tmp_path_factory) -> dict[tuple, list[Tensor]]:
    """The weights that two processes reach, by (name, per_rank, overflow); they have not drifted apart."""
    context = torch.multiprocessing.get_context("spawn")
    queue, store = context.Queue(), str(tmp_path_factory.mktemp("store") / "file")
    processes = [context.Process(target=_train_in_two, args=(rank, store, queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=300) for _ in processes)  # a hang ends here
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert found[0] == found[1]
    return {key: [torch.tensor(p) for p in of] for key, of in found[0].items()}


@pytest.mark.parametrize("name", [*CLASSES, "lsam"])
def test_two_processes_stay_together_and_climb_along_their_common_or_their_own_gradient(name: str, in_two) -> None:
    common, own = in_two[name, False, False], in_two[name, True, False]
    assert all(p.isfinite().all() for p in own)
    assert not all(torch.allclose(a, b, atol=1e-5) for a, b in zip(common, own))
    if name == "esam":
        return  # it chooses among the examples of its own process
    model = net(nn.Identity)
    optimizer = LSAM(model, rho=0.5, lr=0.1) if name == "lsam" else CLASSES[name](model.parameters(), rho=0.5, lr=0.1)
    for batch in batches(7):  # equal shares: the mean over both is the whole batch's
        advance(name, optimizer, model, batch)
    for p, q in zip(common, weights(model)):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_rank", [False, True])
@pytest.mark.parametrize("name", OVERFLOW)
def test_an_overflow_in_one_process_is_skipped_by_both_and_hangs_neither(name: str, per_rank: bool, in_two) -> None:
    disturbed, plain = in_two[name, per_rank, True], in_two[name, per_rank, False]
    assert all(p.isfinite().all() for p in disturbed) and not torch.equal(disturbed[0], plain[0])


def test_fused_step_refuses_a_distributed_model() -> None:
    with one_process(), pytest.raises(ValueError, match="model must not be distributed"):
        model = nn.parallel.DistributedDataParallel(net())
        advance("lsam fused", LSAM(model, rho=0.5, lr=0.1), model, batches(1)[0])


@one_process()
def test_a_base_that_spreads_its_state_over_processes_keeps_it() -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    found = []
    for base, others in ((SGD, {}), (ZeroRedundancyOptimizer, {"optimizer_class": SGD})):
        model = net()
        optimizer = SAM(model.parameters(), base, rho=0.3, lr=0.1, momentum=0.9, **others)
        scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
        for batch in batches(3):
            advance("sam", optimizer, model, batch)
            scheduler.step()
        optimizer.consolidate_state_dict() if others else None
        assert len(optimizer.state_dict()["state"]) == len(list(model.parameters()))
        found.append(weights(model))
    assert_equal(*found)
