"""The two engines of the toy: they agree with each other, with the optimizers of lib.optim, and with
automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from lib.data.toy import ToyConstants, sample
from lib.models import ToyNet
from lib.optim import LSAM
from lib.toy.ensemble import (
    FEATURES,
    ToySetting,
    batch_order,
    features,
    initial_nets,
    intervention,
    lsam,
    net_size,
    sgd,
    stops,
    train,
    unpack,
)
from lib.toy.stack import initial, module

SMALL = ToyConstants(training_points=60, test_points=100)
METHODS = {
    "sgd": sgd(data=SMALL, epochs=3),
    "lsam": lsam(0.7, data=SMALL, epochs=3),
    "importance": intervention("importance", 2.0, data=SMALL, epochs=3),
    "learning_rate": intervention("learning_rate", 0.5, data=SMALL, epochs=3),
    "both": intervention("both", 3.0, data=SMALL, epochs=3),
    "hard anchor": intervention("both", 3.0, anchor="hard", data=SMALL, epochs=3),
    "norm anchor": intervention("importance", 3.0, anchor="norm", data=SMALL, epochs=3),
    "real head weight": intervention("importance", 2.0, head_importance="real", data=SMALL, epochs=3),
    "phantom importance only": ToySetting(rho=0.7, effective="real", data=SMALL, epochs=3),
    "phantom rate only": ToySetting(rho=0.7, importance="real", data=SMALL, epochs=3),
    "averaged phantom": lsam(0.7, memory=4, data=SMALL, epochs=3),
    "odd batch": lsam(0.7, data=SMALL, epochs=3, batch_size=7),
    "batch of one": lsam(0.7, data=SMALL, epochs=1, batch_size=1),
    "batch of two": lsam(0.7, data=SMALL, epochs=1, batch_size=2),
    "batch of three": lsam(0.7, data=SMALL, epochs=1, batch_size=3),
    "full batch": lsam(0.7, data=SMALL, epochs=3, batch_size=300),
    "odd width": lsam(0.7, data=SMALL, epochs=3, width=13),
    "noise": lsam(
        0.7,
        data=ToyConstants(training_points=60, test_points=100, gaussian_noise=0.5, label_noise=0.1, dropout=0.2),
        epochs=3,
    ),
}


def both_engines(setting: ToySetting, seeds=range(2)):
    return [
        train([setting], seeds, (0, 0.5, 1), engine=engine, keep_nets=True, trace_every=1)
        for engine in ("compiled", "torch")
    ]


@pytest.mark.parametrize("name", METHODS)
def test_engines_agree_over_a_short_run(name):
    compiled, reference = both_engines(METHODS[name])
    np.testing.assert_allclose(compiled.nets[0], reference.nets[0], atol=2e-5)
    np.testing.assert_allclose(compiled.heads, reference.heads, atol=2e-5)
    np.testing.assert_allclose(compiled.traces[0], reference.traces[0], atol=1e-4)
    np.testing.assert_allclose(compiled.errors, reference.errors, atol=1e-2)


def test_engines_agree_in_distribution_over_a_long_run():
    setting = lsam(
        0.6,
        data=ToyConstants(complexity=240, training_points=100, test_points=500),
        epochs=20,
        width=32,
        learning_rate=0.05,
    )
    compiled, reference = (
        train([setting], range(24), engine=engine).error("hard")[0, :, -1] for engine in ("compiled", "torch")
    )
    assert compiled.std() > 0
    standard_error = np.sqrt((compiled.var(ddof=1) + reference.var(ddof=1)) / 24)
    assert abs(compiled.mean() - reference.mean()) < 3 * standard_error
    assert np.median(np.abs(compiled - reference)) < 0.05  # the same seeds, so most nets end up alike too


def loss_of(net: ToyNet, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = torch.nn.functional.softplus(-y * net(x)).mean()
    loss.backward()
    return loss


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_an_ensemble_member_is_the_toy_net_trained_with_the_optimizer(rho):
    setting = lsam(rho, data=SMALL, epochs=2)
    net = module(initial([5], setting.width, setting.head)[0])
    optimizer = LSAM(net, base=torch.optim.SGD, rho=rho, lr=setting.learning_rate)
    points = sample(SMALL, 5)
    x, y = torch.from_numpy(points.x), torch.from_numpy(points.y)
    for epoch in torch.tensor(batch_order(5, 60, 2)):
        for start in range(0, 60, setting.batch_size):
            chosen = epoch[start : start + setting.batch_size]
            optimizer.step(lambda chosen=chosen: loss_of(net, x[chosen], y[chosen]))
    result = train([setting], [5], keep_nets=True)
    np.testing.assert_allclose(result.heads[0, 0, -1], net.head.weight.detach()[0], atol=2e-5)
    probe = sample(SMALL, 5, "test").x
    ours = np.stack([features(result.nets[0][0, -1, i], probe[:, 2 * i : 2 * i + 2]) for i in range(2)], axis=1)
    np.testing.assert_allclose(ours, net.features(torch.from_numpy(probe)).detach(), atol=5e-5)


def test_result_depends_neither_on_threads_nor_on_company():
    setting = METHODS["lsam"]
    company = [METHODS["full batch"], setting, METHODS["odd batch"], *[METHODS["both"]] * 40]
    alone = train([setting], [7], keep_nets=True, threads=1)
    for threads in (1, None):
        crowd = train(company, [1, 7, 3], keep_nets=True, threads=threads)
        assert np.array_equal(alone.nets[0][0], crowd.nets[1][1])
        assert np.array_equal(alone.errors[0, 0], crowd.errors[1, 1])


def test_torch_keeps_its_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        train([METHODS["lsam"]], [0])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_recording_changes_no_result():
    plain = train([METHODS["lsam"]], range(2))
    recorded = train([METHODS["lsam"]], range(2), np.linspace(0, 1, 7), trace_every=3, keep_nets=True)
    assert np.array_equal(plain.errors[:, :, -1], recorded.errors[:, :, -1])
    assert np.array_equal(plain.heads[:, :, -1], recorded.heads[:, :, -1])


def test_rho_zero_is_sgd_bit_for_bit():
    sgd_result, lsam_result = (
        train([s], range(3), keep_nets=True) for s in (METHODS["sgd"], lsam(0.0, data=SMALL, epochs=3))
    )
    assert np.array_equal(sgd_result.nets[0], lsam_result.nets[0])


def test_methods_of_one_seed_start_alike_and_see_the_same_batches():
    result = train([METHODS["sgd"], METHODS["lsam"]], range(3), (0, 1), keep_nets=True, trace_every=1)
    assert np.array_equal(result.nets[0][:, 0], result.nets[1][:, 0])
    first = [trace[:, 0, :2] for trace in result.traces]
    assert np.array_equal(*first)
    assert not np.array_equal(result.nets[0][:, 1], result.nets[1][:, 1])


@budget(max_examples=15, deadline=None)
@given(rho=st.floats(1e-3, 3), batch_size=st.integers(1, 60), width=st.integers(1, 40), seed=st.integers(0, 50))
def test_phantom_head_is_at_distance_rho(rho, batch_size, width, seed):
    trace = train([lsam(rho, data=SMALL, epochs=1, batch_size=batch_size, width=width)], [seed], trace_every=1).traces[
        0
    ]
    np.testing.assert_allclose(np.linalg.norm(trace[..., 2:] - trace[..., :2], axis=-1), rho, rtol=1e-3, atol=1e-6)


def test_initial_weights_are_within_pytorchs_default_bound():
    part = unpack(initial_nets(0, 64))
    assert 0.6 < np.abs(part["W1"]).max() <= 1 / np.sqrt(2)
    for name in ("W2", "b2", "w3", "b3"):
        assert np.abs(part[name]).max() <= 1 / 8
    assert part["W2"].std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.03)


def test_unpack_gives_views_of_every_weight_once():
    flat = np.zeros((3, net_size(9)), np.float32)
    for part in unpack(flat).values():
        part += 1
    assert np.all(flat == 1)


def test_longer_training_begins_with_the_order_of_a_shorter_one():
    assert np.array_equal(batch_order(1, 30, 9)[:4], batch_order(1, 30, 4))
    assert np.array_equal(np.sort(batch_order(1, 30, 9), axis=1), np.tile(np.arange(30), (9, 1)))


def test_checkpoints_are_steps_of_training():
    setting = sgd(data=SMALL, epochs=3)
    assert setting.steps == 36
    assert list(stops(setting, (0, 0.5, 1))) == [0, 18, 36]


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_a_diverged_net_is_flagged_and_has_no_number(engine):
    result = train([sgd(learning_rate=1e6, data=SMALL, epochs=3), METHODS["sgd"]], range(2), engine=engine)
    assert result.diverged.tolist() == [[True, True], [False, False]]
    assert np.isnan(result.errors[0]).all() and np.isfinite(result.errors[1]).all()


def test_errors_are_those_of_the_recorded_nets():
    result = train([METHODS["lsam"]], [2], keep_nets=True)
    test = sample(SMALL, 2, "test")
    margins = [
        test.y * result.heads[0, 0, -1, i] * features(result.nets[0][0, -1, i], test.x[:, 2 * i : 2 * i + 2])
        for i in range(2)
    ]
    for feature, margin in zip(FEATURES, (*margins, sum(margins)), strict=True):
        assert result.error(feature)[0, 0, -1] == pytest.approx(
            (margin <= 0).mean(), abs=0.011
        )  # one point may sit on the fence


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_torch_engine_gives_the_same_on_cuda():
    cpu, cuda = (
        train([METHODS["lsam"]], range(2), engine="torch", device=device, keep_nets=True) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu.nets[0], cuda.nets[0], atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (dict(settings=[]), "settings"),
        (dict(seeds=[]), "seeds"),
        (dict(seeds=[-1]), "seeds"),
        (dict(checkpoints=(0.5, 0.2)), "checkpoints"),
        (dict(checkpoints=(1.2,)), "checkpoints"),
        (dict(engine="jax"), "engine"),
        (dict(engine="compiled", device="cuda"), "device"),
        (dict(trace_every=-1), "trace_every"),
        (dict(threads=0), "threads"),
    ],
)
def test_a_bad_argument_is_named_in_one_line(arguments, named):
    with pytest.raises(ValueError, match=named) as caught:
        train(**{"settings": [METHODS["sgd"]], "seeds": [0], **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (dict(rho=-1), "rho"),
        (dict(rho=float("inf")), "rho"),
        (dict(ratio=0), "ratio"),
        (dict(width=0), "width"),
        (dict(epochs=1.5), "epochs"),
        (dict(importance="both"), "importance"),
        (dict(anchor="soft"), "anchor"),
        (dict(head=(1, float("nan"))), "head"),
        (dict(head_importance="x"), "head_importance"),
        (dict(batch_size=0), "batch_size"),
    ],
)
def test_a_bad_setting_is_named_in_one_line(arguments, named):
    with pytest.raises(ValueError, match=named):
        ToySetting(**arguments)
    with pytest.raises(ValueError, match="effect"):
        intervention("none", 1.0)
