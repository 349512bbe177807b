"""Every optimizer of `lib.optim` in every situation in which a wrapper around another optimizer can fail silently.

An optimizer that is listed in `VARIANTS` meets all of them.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer, RMSprop, SparseAdam

from lib.models import FeatureNet
from lib.optim import ASAM, ESAM, GSAM, LSAM, SAM, VARIANTS, WITHOUT_RADIUS, DecayedSAM, FriendlySAM, LookSAM
from lib.optim.variants import take_step

NAMES = [name for name in VARIANTS if name not in WITHOUT_RADIUS]
SETTINGS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}


class Head(nn.Linear):
    """A last layer in which evaluation number `at` (of those that ask for a gradient) can be made to fail."""

    at, how, calls = 0, "", 0

    def forward(self, phi: Tensor) -> Tensor:
        out = super().forward(phi)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.at and self.how == "error":
                raise ArithmeticError("an evaluation failed")
            if self.calls == self.at and self.how == "overflow":
                out.register_hook(lambda gradient: gradient * torch.inf)
        return out

    def fail(self, at: int, how: str) -> None:
        self.at, self.how, self.calls = at, how, 0


class Net(FeatureNet):
    """A body with batch norm and a head: (n, 6) to logits (n, 3)."""

    def __init__(self, part: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), part or nn.BatchNorm1d(8), nn.ReLU())
        self.head = Head(8, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


def net(part: Callable[[], nn.Module] | None = None, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(part() if part else None)


# The classes of these names that take parameters; LSAM takes a model.
CLASSES = {type(VARIANTS[name](net(), 0.1, {"lr": 0.1})): name for name in reversed(NAMES) if name != "lsam"}
CLASSES = {name: variant for variant, name in CLASSES.items()}


def batches(count: int, n: int = 10) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 6, generator=draw), torch.randint(3, (n,), generator=draw)) for _ in range(count)]


def build(name: str, model: nn.Module, rho: float = 0.5, base: str = "sgd") -> SAM:
    """The optimizer of this name around SGD, or the same class around Adam."""
    if base == "sgd":
        return VARIANTS[name](model, rho, SETTINGS)
    if name == "lsam":
        return LSAM(model, Adam, rho, lr=0.01)
    return CLASSES.get(name, SAM)(model.parameters(), Adam, rho, model=model, lr=0.01)


def advance(optimizer: SAM, model: nn.Module, batch: tuple[Tensor, Tensor], scaler=None) -> None:
    """A step with two evaluations of the whole net, by the closure that the optimizer takes."""
    x, y = batch
    if isinstance(optimizer, ESAM):
        optimizer.step(lambda which: F.cross_entropy(model(x[which]), y[which], reduction="none"), scaler)
        return

    def closure() -> Tensor:
        loss = F.cross_entropy(model(x), y)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    optimizer.step(closure, scaler)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second))


# At w~ nothing of w is used


class CastInside(Net):
    cache = True

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=self.cache):
            return super().forward(x).float()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["in the net", "around the step", "around the fused step"])
def test_autocast_evaluates_the_phantom_with_the_phantoms_weights(name: str, where: str) -> None:
    found = []
    for cache in (True, False):
        torch.manual_seed(0)
        model = CastInside() if where == "in the net" else Net()
        model.cache = cache
        optimizer = build(name, model)
        for batch in batches(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=where != "in the net", cache_enabled=cache):
                (
                    partial(take_step, model, optimizer, *batch)
                    if "fused" in where
                    else partial(advance, optimizer, model, batch)
                )()
        found.append(weights(model))
    assert_equal(*found)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "friendly"])
def test_half_precision_with_a_scaler_evaluates_the_phantom_too(name: str) -> None:
    found = []
    for cache in (True, False):
        model = net()
        optimizer, scaler = build(name, model), torch.amp.GradScaler("cpu", init_scale=2.0**6)
        for x, y in batches(2):
            with torch.autocast("cpu", torch.float16, cache_enabled=cache):
                if name == "lsam":
                    optimizer.step_fused(x, partial(F.cross_entropy, target=y), scaler)
                else:
                    advance(optimizer, model, (x, y), scaler)
            scaler.update()
        found.append(weights(model))
    assert_equal(*found)


def test_fused_step_without_gradients_outside_is_the_same_step() -> None:
    found = []
    for context in (torch.no_grad, torch.enable_grad):
        model = net()
        optimizer = build("lsam", model)
        with context():
            optimizer.step_fused(batches(1)[0][0], lambda logits: F.cross_entropy(logits, batches(1)[0][1]))
        found.append(weights(model))
    assert_equal(*found)


def test_fused_step_refuses_a_head_that_shares_a_parameter_with_the_body_and_the_plain_step_takes_it() -> None:
    model = net(lambda: nn.Linear(8, 8))
    model.head = nn.Linear(8, 8)
    model.head.weight = model.body[1].weight
    optimizer = LSAM(model, rho=0.3, lr=0.1)
    x, y = batches(1)[0]
    with pytest.raises(ValueError, match="model must not share"):
        optimizer.step_fused(x, partial(F.cross_entropy, target=y))
    advance(optimizer, model, (x, y))
    assert optimizer.phantom_norm == pytest.approx(0.3, rel=1e-5)


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
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", PARTS)
def test_buffers_change_once_a_step_as_in_a_forward_pass_at_the_weights(name: str, part: str) -> None:
    model, (batch,) = net(PARTS[part]), batches(1)
    same = copy.deepcopy(model)
    same(batch[0])
    take_step(model, build(name, model), *batch)
    assert_equal(list(model.buffers()), list(same.buffers()))


@pytest.mark.parametrize("part", ["batch norm", "own statistics", "spectral norm", "observer"])
def test_buffers_change_once_a_step_without_the_model_too(part: str) -> None:
    model, (batch,) = net(PARTS[part]), batches(1)
    same = copy.deepcopy(model)
    same(batch[0])
    advance(SAM(model.parameters(), rho=0.5, lr=0.1), model, batch)
    assert_equal(list(model.buffers()), list(same.buffers()))


@pytest.mark.parametrize("how", ["compiled loss", "fullgraph"])
def test_buffers_of_a_compiled_model_change_once_where_the_model_is_given(how: str) -> None:
    model, (batch,) = net(), batches(1)
    optimizer = SAM(model.parameters(), rho=0.5, lr=0.1, model=model)
    if how == "fullgraph":
        model.compile(backend="eager", fullgraph=True)
    loss = torch.compile(lambda x: model(x).square().sum(), backend="eager")

    def closure() -> Tensor:
        value = loss(batch[0]) if how == "compiled loss" else model(batch[0]).square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    assert int(model.body[1].num_batches_tracked) == 1
    torch._dynamo.reset()


# Nothing is remembered of a step that was not taken


@pytest.mark.parametrize("base", ["sgd", "adam"])
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("how", ["overflow", "error"])
@pytest.mark.parametrize("name", NAMES)
def test_a_disturbed_step_leaves_later_steps_as_if_it_had_not_been(name: str, how: str, at: int, base: str) -> None:
    if how == "overflow" and name == "friendly":
        pytest.skip("it refuses a scaler")
    found = []
    for before in (0, 1, 3):  # undisturbed steps before
        if name == "looksam" and before and at == 2:
            continue  # it evaluates once only there
        for disturbed in (False, True):
            model = net()
            optimizer = build(name, model, base=base)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6) if how == "overflow" else None
            for number, batch in enumerate(batches(7)):
                if disturbed and number == before:
                    model.head.fail(at, how)
                    state = copy.deepcopy([b for b in model.buffers()])
                    try:
                        advance(optimizer, model, batches(8)[7], scaler)
                    except ArithmeticError:
                        assert how == "error"
                    model.head.fail(0, "")
                    for buffer, earlier in zip(model.buffers(), state):
                        buffer.copy_(earlier)  # a forward pass at w did take place
                    if scaler is not None:
                        scaler.update()
                advance(optimizer, model, batch, scaler)
                if scaler is not None:
                    scaler.update()
            found.append(weights(model))
        assert_equal(found[-2], found[-1])


class Sometimes(nn.Module):
    """Uses its second weight in some of its evaluations only."""

    def __init__(self, when: int) -> None:
        super().__init__()
        self.first, self.second, self.when, self.calls = nn.Linear(6, 3), nn.Linear(6, 3), when, 0

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.calls += 1
        return self.first(x) + (self.second(x) if self.calls == self.when else 0)


@pytest.mark.parametrize("base", [SGD, Adam, AdamW])
@pytest.mark.parametrize("when", [1, 2])
@pytest.mark.parametrize("name", [name for name in CLASSES])
def test_a_parameter_with_a_gradient_in_one_pass_only_breaks_no_later_step(name: str, when: int, base: type) -> None:
    torch.manual_seed(0)
    model = Sometimes(when)
    others = {"weight_decay": 0.0} if base is AdamW else {}
    optimizer = CLASSES[name](model.parameters(), base, 0.3, lr=0.01, **others)
    for batch in batches(12):
        model.calls %= 2
        advance(optimizer, model, batch)
    assert all(p.isfinite().all() for p in model.parameters())


# One dictionary each


def test_a_base_with_a_rho_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="base must have no option called rho"):
        SAM(net().parameters(), Adadelta)


@pytest.mark.parametrize("variant", [GSAM, LookSAM])
def test_alpha_of_the_variant_and_of_rmsprop_are_two(variant: type[SAM]) -> None:
    model = net()
    optimizer = variant(model.body.parameters(), RMSprop, alpha=0.3, lr=0.01)
    optimizer.add_param_group({"params": model.head.parameters()})
    assert [group["alpha"] for group in optimizer.param_groups] == [0.99, 0.99] and optimizer.alpha == 0.3


@pytest.mark.parametrize(
    "variant, option",
    [(ASAM, "eta"), (GSAM, "alpha"), (LookSAM, "k"), (FriendlySAM, "sigma"), (ESAM, "beta"), (DecayedSAM, "decay")],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_variants_setting_in_a_group_is_refused(variant: type[SAM], option: str, late: bool) -> None:
    model = net()
    groups = [{"params": list(model.body.parameters())}, {"params": list(model.head.parameters()), option: 0.5}]
    with pytest.raises(ValueError, match=f"{option} must be given to {variant.__name__}"):
        optimizer = variant(groups[:1] if late else groups)
        optimizer.add_param_group(groups[1])


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
        optimizer.param_groups[0][name] = value
        advance(optimizer, model, batch)
    assert_equal(before, weights(model))


@pytest.mark.parametrize("arguments", [{"base": AdamW}, {"weight_decay": 0.1}])
def test_decayed_sam_refuses_a_second_decay_wherever_it_stands(arguments: dict) -> None:
    with pytest.raises(ValueError, match="weight_decay must be 0"):
        DecayedSAM(net().parameters(), **arguments)
    with pytest.raises(ValueError, match="weight_decay must be 0"):
        DecayedSAM([{"params": list(net().parameters()), "weight_decay": 0.1}])
    DecayedSAM(net().parameters(), AdamW, weight_decay=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_groups_and_state_stay_the_bases_whoever_replaces_them(name: str) -> None:
    model, data = net(), batches(3)
    optimizer = build(name, model)
    advance(optimizer, model, data[0])
    saved = copy.deepcopy(optimizer.base.state_dict())
    optimizer.base.load_state_dict(saved)
    assert optimizer.param_groups is optimizer.base.param_groups and optimizer.state is optimizer.base.state
    assert len(optimizer.state_dict()["state"]) == len(list(model.parameters()))
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    optimizer.state = defaultdict(dict)
    assert optimizer.base.state is optimizer.state and not optimizer.state_dict()["state"]
    scheduler, rate = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1), optimizer.param_groups[0]["lr"]
    advance(optimizer, model, data[1])
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.1 * rate)
    assert len(optimizer.base.state) == len(list(model.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_another_base_is_refused_and_changes_nothing(name: str) -> None:
    model, other, (batch,) = net(), net(), batches(1)
    optimizer = build(name, model)
    advance(optimizer, model, batch)
    foreign = (SGD if "adam" in name else Adam)(other.parameters(), lr=0.7)
    F.cross_entropy(other(batch[0]), batch[1]).backward()
    foreign.step()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="state_dict must be of"):
        optimizer.load_state_dict(foreign.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"] and after["state"].keys() == before["state"].keys()
    optimizer.load_state_dict(optimizer.base.state_dict())  # the base's own is welcome


@pytest.mark.parametrize("name", NAMES)
def test_hooks_fire_once_a_step(name: str) -> None:
    first = net()
    SAM(first.parameters(), lr=0.1)  # torch wraps the step of a class when it first meets one
    model, (batch,) = net(), batches(1)
    optimizer, fired = build(name, model), []
    optimizer.register_step_pre_hook(lambda *_: fired.append("before"))
    optimizer.register_step_post_hook(lambda *_: fired.append("after"))
    advance(optimizer, model, batch)
    assert fired == ["before", "after"]


# Gradients of other kinds


@pytest.mark.parametrize("base", [SGD, SparseAdam])
@pytest.mark.parametrize("name", [name for name in CLASSES if name != "sam_decay_inside"])
def test_sparse_gradients_are_taken(name: str, base: type) -> None:
    torch.manual_seed(0)
    model = nn.EmbeddingBag(12, 3, sparse=True)
    optimizer = CLASSES[name](model.parameters(), base, 0.3, lr=0.05)
    before = weights(model)
    for _ in range(7):
        advance(optimizer, model, (torch.tensor([[1, 2], [4, 5]]), torch.tensor([0, 2])))
    assert not torch.equal(before[0], weights(model)[0])
    if base is SparseAdam:  # touches the rows that were looked up, and no others
        assert torch.equal(before[0][[0, 3, 6, 7]], weights(model)[0][[0, 3, 6, 7]])


class Complex(nn.Module):
    def __init__(self, real: bool) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        start = torch.randn(6, 3, 2, generator=draw)
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
            advance(optimizer, model, batch)
        found.append(model.weight.detach() if real else torch.view_as_real(model.weight.detach()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


# Calls that promise something else


def test_gradients_that_were_accumulated_before_the_step_are_dropped() -> None:
    one, two, (first, second) = net(), net(), batches(2)
    plain, accumulated = build("sam", one), build("sam", two)
    F.cross_entropy(two(first[0]), first[1]).backward()
    two.load_state_dict(one.state_dict())  # batch norm's statistics
    advance(plain, one, second)
    advance(accumulated, two, second)
    assert_equal(weights(one), weights(two))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "friendly"])
def test_a_scaler_that_calls_the_step_itself_is_refused(name: str) -> None:
    model, (batch,) = net(), batches(1)
    optimizer, scaler = build(name, model), torch.amp.GradScaler("cpu", init_scale=4.0)
    before = weights(model)
    scaler.scale(F.cross_entropy(model(batch[0]), batch[1])).backward()
    with pytest.raises(ValueError, match=r"scaler must be given to step\(closure, scaler\)"):
        scaler.step(optimizer, lambda: None)
    assert_equal(before, weights(model))


def test_unscaling_in_the_closure_is_refused_by_the_scaler_and_the_weights_are_restored() -> None:
    model, (batch,) = net(), batches(1)
    optimizer, scaler = build("sam", model), torch.amp.GradScaler("cpu", init_scale=4.0)
    before = weights(model)

    def closure() -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        return loss

    with pytest.raises(RuntimeError, match="already been called"):
        optimizer.step(closure, scaler)
    assert_equal(before, weights(model))


class NeedsClosure(SGD):
    def step(self, closure):
        return super().step(closure)


def test_a_base_that_needs_a_closure_is_refused_before_any_pass() -> None:
    with pytest.raises(ValueError, match="base must be an optimizer class that steps without a closure"):
        SAM(net().parameters(), NeedsClosure)


class TwoModes(SGD):
    mode = "train"

    def eval(self) -> None:
        self.mode = "eval"


def test_modes_of_the_base_can_be_set_through_it_and_nothing_is_made_up() -> None:
    optimizer = SAM(net().parameters(), TwoModes)
    optimizer.eval()
    assert optimizer.base.mode == "eval" and not hasattr(SAM(net().parameters()), "eval")


# Two processes

OVERFLOW = "sam, looksam".split(", ")


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
    model = net(lambda: nn.Identity())
    wrapped = nn.parallel.DistributedDataParallel(model)
    others = {"rho": 0.5, "lr": 0.1, "per_rank": per_rank}
    optimizer = (
        LSAM(wrapped, **others) if name == "lsam" else CLASSES[name](model.parameters(), model=wrapped, **others)
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0) if overflow else None
    for number, (x, y) in enumerate(batches(7)):
        if overflow and number == 5 and rank == 0:
            model.head.fail(1, "overflow")
        advance(optimizer, wrapped, (x[rank::2], y[rank::2]), scaler)
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
    model = net(lambda: nn.Identity())
    optimizer = LSAM(model, rho=0.5, lr=0.1) if name == "lsam" else CLASSES[name](model.parameters(), rho=0.5, lr=0.1)
    for batch in batches(7):  # equal shares: the mean over both is the whole batch's
        advance(optimizer, model, batch)
    for p, q in zip(common, weights(model)):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_rank", [False, True])
@pytest.mark.parametrize("name", OVERFLOW)
def test_an_overflow_in_one_process_is_skipped_by_both_and_hangs_neither(name: str, per_rank: bool, in_two) -> None:
    disturbed, plain = in_two[name, per_rank, True], in_two[name, per_rank, False]
    assert all(p.isfinite().all() for p in disturbed) and not torch.equal(disturbed[0], plain[0])


def test_fused_step_refuses_a_distributed_model() -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        optimizer = LSAM(nn.parallel.DistributedDataParallel(net()), rho=0.5, lr=0.1)
        with pytest.raises(ValueError, match="model must not be distributed"):
            optimizer.step_fused(batches(1)[0][0], lambda logits: logits.sum())
    finally:
        torch.distributed.destroy_process_group()


def test_per_rank_asks_for_a_distributed_model() -> None:
    with pytest.raises(ValueError, match="model must be in DistributedDataParallel"):
        SAM(net().parameters(), per_rank=True)


def test_every_optimizer_is_an_optimizer() -> None:
    assert all(isinstance(build(name, net()), Optimizer) for name in NAMES)


def test_a_base_that_spreads_its_state_over_processes_keeps_it() -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        found = []
        for base, others in ((SGD, {}), (ZeroRedundancyOptimizer, {"optimizer_class": SGD})):
            model = net()
            optimizer = SAM(model.parameters(), base, rho=0.3, lr=0.1, momentum=0.9, **others)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
            for batch in batches(3):
                advance(optimizer, model, batch)
                scheduler.step()
            optimizer.consolidate_state_dict() if others else None
            assert len(optimizer.state_dict()["state"]) == len(list(model.parameters()))
            found.append(weights(model))
        assert_equal(*found)
    finally:
        torch.distributed.destroy_process_group()
