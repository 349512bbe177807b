"""The two engines of the toy: they agree with each other, with the optimizers of lib.optim, and with
automatic differentiation."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from lib.data.toy import ToyConstants, sample
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
from lib.toy.nets import Model
from lib.toy.stack import initial, module

SMALL = ToyConstants(training_points=60, test_points=100)
NOISY = replace(SMALL, gaussian_noise=0.5, uniform_noise=0.1, label_noise=0.1, dropout=0.2)
METHODS = {  # every value of every field of a setting, in both engines
    "sgd": sgd(),
    "lsam": lsam(0.7),
    "importance": intervention("importance", 2.0),
    "learning_rate": intervention("learning_rate", 0.5),
    "both": intervention("both", 3.0),
    "hard anchor": intervention("both", 3.0, anchor="hard"),
    "norm anchor": intervention("importance", 3.0, anchor="norm"),
    "real head weight": intervention("importance", 2.0, head_importance="real"),
    "phantom importance only": ToySetting(rho=0.7, effective="real"),
    "phantom rate only": ToySetting(rho=0.7, importance="real"),
    "constant rates": ToySetting(importance="real", effective="constant", rates=(0.1, 1.2)),
    "constant importance": ToySetting(importance="constant", effective="real", rates=(0.5, 2.0)),
    "only the easy weight": lsam(0.7, displaced="easy"),
    "only the hard weight": lsam(0.7, displaced="hard"),
    "averaged phantom": lsam(0.7, memory=4),
    "averaged phantom, scaled": lsam(0.7, memory=4, average="scaled"),
    "averaged phantom, biased": lsam(0.7, memory=4, average="biased"),
    "another batch's phantom": lsam(0.7, phantom_shift=3),
    "larger batch's phantom": lsam(0.7, phantom_points=12),
    "a later and smaller batch's phantom": lsam(0.7, phantom_points=2, phantom_shift=11),
    "whole set's phantom": lsam(0.7, phantom_points=60),
    "another phantom of odd batches": lsam(0.7, phantom_shift=1, batch_size=7),
    "first epoch": lsam(0.7, ascent=(0, 1)),
    "from the second epoch, averaged": lsam(0.7, ascent=(1, 3), memory=4),
    "some steps of the intervention": intervention("both", 3.0, ascent=(5 / 12, 20 / 12), head_importance="real"),
    "spectral decoupling": lsam(0.7, decoupling=0.3),
    "label smoothing": lsam(0.7, smoothing=0.2),
    "small start": lsam(0.7, gain=0.5, bias=3.0, head=(1.5, -0.5)),
    "no bias at the start": lsam(0.7, bias=0.0),
    "layers without bias": lsam(0.7, bias=None),
    "odd batch": lsam(0.7, batch_size=7),
    "batch of one": lsam(0.7, batch_size=1),
    "batch of two": lsam(0.7, batch_size=2),
    "batch of three": lsam(0.7, batch_size=3),
    "full batch": lsam(0.7, batch_size=300),
    "odd width": lsam(0.7, width=13),
    "noise": lsam(0.7, data=NOISY),
    "intervals of their own": lsam(0.7, data=replace(SMALL, inner=0.2, outer=1.4, easy_interval=(0.5, 1.2))),
}
METHODS = {
    name: replace(one, data=SMALL if one.data == ToyConstants() else one.data, epochs=1 if one.batch_size < 4 else 3)
    for name, one in METHODS.items()
}


@pytest.mark.parametrize("name", METHODS)
def test_engines_agree_over_a_short_run(name):
    how = {"checkpoints": (0, 0.5, 1), "keep_nets": True, "trace_every": 1}
    compiled, reference = (train([METHODS[name]], range(2), engine=engine, **how) for engine in ("compiled", "torch"))
    np.testing.assert_allclose(compiled.nets[0], reference.nets[0], atol=2e-5)
    np.testing.assert_allclose(compiled.heads, reference.heads, atol=2e-5)
    np.testing.assert_allclose(compiled.traces[0], reference.traces[0], atol=1e-4)
    np.testing.assert_allclose(compiled.errors, reference.errors, atol=1e-2)


@pytest.mark.parametrize("others", [{}, {"smoothing": 0.2}, {"decoupling": 0.3}, {"smoothing": 0.1, "decoupling": 0.1}])
@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_an_ensemble_member_is_the_toy_net_trained_with_the_optimizer(rho, others):
    setting = lsam(rho, data=SMALL, epochs=2, gain=1.5, **others)
    net = module(initial([Model(setting, 5)])[0])
    optimizer = LSAM(net, base=torch.optim.SGD, rho=rho, lr=setting.learning_rate)
    points = sample(SMALL, 5)
    x, y = torch.from_numpy(points.x), torch.from_numpy(points.y)

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        logits, share, softplus = net(x[chosen]), setting.smoothing / 2, torch.nn.functional.softplus
        losses = (1 - share) * softplus(-y[chosen] * logits) + share * softplus(y[chosen] * logits)
        loss = (losses + setting.decoupling / 2 * logits**2).mean()
        loss.backward()
        return loss

    for epoch in torch.tensor(batch_order(5, 60, 2)):
        for start in range(0, 60, setting.batch_size):
            chosen = epoch[start : start + setting.batch_size]
            optimizer.step(lambda chosen=chosen: loss_of(chosen))
    result = train([setting], [5], keep_nets=True)
    np.testing.assert_allclose(result.heads[0, 0, -1], net.head.weight.detach()[0], atol=2e-5)
    probe = sample(SMALL, 5, "test").x
    ours = np.stack([features(result.nets[0][0, -1, i], probe[:, 2 * i : 2 * i + 2]) for i in range(2)], axis=1)
    np.testing.assert_allclose(ours, net.features(torch.from_numpy(probe)).detach(), atol=1e-4)


def ascents(setting: ToySetting) -> np.ndarray:
    """w~ - w at every step (step, 2) of nets that do not move, so that it is a matter of the batch alone."""
    still = replace(setting, data=SMALL, learning_rate=0.0, epochs=3)
    trace = train([still], [4], trace_every=1).traces[0][0].astype(float)
    return trace[:, 2:] - trace[:, :2]


OWN = ascents(lsam(0.7))  # 12 batches an epoch


def test_mean_of_ascents_is_as_its_name_says():
    mean, weights = np.zeros(2), 0.0
    found = {name: ascents(lsam(0.7, memory=4, average=name)) for name in ("biased", "unbiased", "scaled")}
    for step, own in enumerate(OWN):
        mean, weights = 0.75 * mean + own / 4, 0.75 * weights + 1 / 4
        expected = {"biased": mean, "unbiased": mean / weights, "scaled": 0.7 * mean / np.linalg.norm(mean)}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][step], value, atol=1e-5)
    assert np.linalg.norm(found["biased"][0]) == pytest.approx(0.7 / 4, abs=1e-5)


def test_phantom_of_other_points_is_that_of_their_own_batch():
    own = OWN.reshape(3, 12, 2)
    np.testing.assert_allclose(ascents(lsam(0.7, phantom_points=5)), OWN, atol=1e-6)
    shifted = ascents(lsam(0.7, phantom_shift=2)).reshape(3, 12, 2)
    np.testing.assert_allclose(shifted, np.roll(own, -2, axis=1), atol=1e-6)  # within the epoch's order
    larger = ascents(lsam(0.7, phantom_points=10))
    np.testing.assert_allclose(larger[::2], ascents(lsam(0.7, batch_size=10)), atol=1e-5)
    whole = ascents(lsam(0.7, phantom_points=60))
    np.testing.assert_allclose(whole, np.tile(whole[0], (36, 1)), atol=1e-5)
    assert np.abs(whole[0] - OWN).max() > 0.1


def test_only_one_entry_of_the_head_is_displaced():
    for column, name in enumerate(("easy", "hard")):
        found = ascents(lsam(0.7, displaced=name))
        np.testing.assert_allclose(found[:, column], OWN[:, column], atol=1e-6)
        assert not found[:, 1 - column].any()


@pytest.mark.parametrize(
    ("ascent", "first", "last"),
    [((0, 1), 0, 12), ((1, 3), 12, 36), ((5 / 12, 20 / 12), 5, 20), ((0.26, 0.29), 3, 3), ((0, 3), 0, 36)],
)
def test_the_phantom_holds_in_its_window_only(ascent, first, last):
    inside = np.isin(np.arange(36), np.arange(first, last))
    found = ascents(lsam(0.7, ascent=ascent))
    np.testing.assert_allclose(found[inside], OWN[inside], atol=1e-6)
    assert not found[~inside].any()
    averaged = ascents(lsam(0.7, ascent=ascent, memory=4, average="biased"))
    np.testing.assert_allclose(averaged[inside][:1], OWN[inside][:1] / 4, atol=1e-6)  # no mean of what was before


def test_result_depends_neither_on_threads_nor_on_company():
    setting = METHODS["lsam"]
    company = [METHODS["full batch"], setting, METHODS["odd batch"], *[METHODS["both"]] * 40]
    alone = train([setting], [7], keep_nets=True, threads=1)
    for threads in (1, None):
        crowd = train(company, [1, 7, 3], keep_nets=True, threads=threads)
        assert np.array_equal(alone.nets[0][0], crowd.nets[1][1])
        assert np.array_equal(alone.errors[0, 0], crowd.errors[1, 1])


def test_the_same_bits_whether_compiled_now_or_found_in_the_cache(tmp_path):
    """Numba binds a compiled function to its callees, one loaded from the cache to its own copies of them."""
    code = (
        "from lib.toy.ensemble import *; from lib.toy import kernel\n"
        "nets = train([lsam(0.7, epochs=5), sgd(epochs=5, batch_size=7)], range(2), keep_nets=True).nets\n"
        "print(sum(kernel.train.stats.cache_hits.values()), *(of.tobytes().hex() for of in nets))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True) for _ in range(2)]
    (compiled, *now), (cached, *later) = (run.stdout.split() for run in runs)
    assert (compiled, cached) == (b"0", b"1") and len(now) == 2 and now == later


def test_recording_changes_no_result():
    plain = train([METHODS["lsam"]], range(2))
    recorded = train([METHODS["lsam"]], range(2), np.linspace(0, 1, 7), trace_every=3, keep_nets=True)
    assert np.array_equal(plain.errors[:, :, -1], recorded.errors[:, :, -1])
    assert np.array_equal(plain.heads[:, :, -1], recorded.heads[:, :, -1])


def test_rho_zero_is_sgd_bit_for_bit():
    plain, ours = train([METHODS["sgd"], lsam(0.0, data=SMALL, epochs=3)], range(3), keep_nets=True).nets
    assert np.array_equal(plain, ours)


@budget(max_examples=15, deadline=None)
@given(rho=st.floats(1e-3, 3), batch_size=st.integers(1, 60), width=st.integers(1, 40), seed=st.integers(0, 50))
def test_phantom_head_is_at_distance_rho(rho, batch_size, width, seed):
    setting = lsam(rho, data=SMALL, epochs=1, batch_size=batch_size, width=width)
    (trace,) = train([setting], [seed], trace_every=1).traces
    np.testing.assert_allclose(np.linalg.norm(trace[..., 2:] - trace[..., :2], axis=-1), rho, rtol=1e-3, atol=1e-6)


def test_initial_weights_are_within_pytorchs_default_bound_times_the_gain():
    part, scaled = unpack(initial_nets(0, 64)), unpack(initial_nets(0, 64, 0.5, 3.0))
    assert 0.6 < np.abs(part["W1"]).max() <= 1 / np.sqrt(2)
    for name in ("W2", "b2", "w3", "b3"):
        assert np.abs(part[name]).max() <= 1 / 8
    assert part["W2"].std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.03)
    for name, value in part.items():
        np.testing.assert_allclose(scaled[name], value * (1.5 if name.startswith("b") else 0.5), rtol=1e-6)


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_layers_have_no_bias_or_one_that_starts_at_zero(engine):
    settings = [METHODS["layers without bias"], METHODS["no bias at the start"]]
    none, start = (unpack(nets) for nets in train(settings, [0], (0, 1), keep_nets=True, engine=engine).nets)
    for name in ("b1", "b2", "b3"):
        assert not none[name].any() and not start[name][:, 0].any() and start[name][:, 1].any()


def test_weights_orders_and_checkpoints_are_where_they_belong():
    flat = np.zeros((3, net_size(9)), np.float32)
    for part in unpack(flat).values():
        part += 1
    assert np.all(flat == 1)  # views of every weight once
    assert np.array_equal(batch_order(1, 30, 9)[:4], batch_order(1, 30, 4))
    assert np.array_equal(np.sort(batch_order(1, 30, 9), axis=1), np.tile(np.arange(30), (9, 1)))
    assert list(stops(sgd(data=SMALL, epochs=3), (0, 0.5, 1))) == [0, 18, 36]


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_a_diverged_net_is_flagged_and_has_no_number(engine):
    result = train([sgd(learning_rate=1e6, data=SMALL, epochs=3), METHODS["sgd"]], range(2), engine=engine)
    assert result.diverged.tolist() == [[True, True], [False, False]]
    assert np.isnan(result.errors[0]).all() and np.isfinite(result.errors[1]).all()


def test_errors_are_those_of_the_recorded_nets():
    result, test = train([METHODS["lsam"]], [2], keep_nets=True), sample(SMALL, 2, "test")
    net, head = result.nets[0][0, -1], result.heads[0, 0, -1]
    margins = [test.y * head[i] * features(net[i], test.x[:, 2 * i : 2 * i + 2]) for i in range(2)]
    for feature, margin in zip(FEATURES, (*margins, sum(margins)), strict=True):  # one point may sit on the fence
        assert result.error(feature)[0, 0, -1] == pytest.approx((margin <= 0).mean(), abs=0.011)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_torch_engine_gives_the_same_on_cuda():
    cpu, cuda = (
        train([METHODS["lsam"]], range(2), engine="torch", device=device, keep_nets=True) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu.nets[0], cuda.nets[0], atol=2e-5)


REFUSED = {  # arguments of `train`, and of a setting
    "train": [
        *({"settings": []}, {"seeds": []}, {"seeds": [-1]}, {"checkpoints": (0.5, 0.2)}, {"checkpoints": (1.2,)}),
        *({"engine": "jax"}, {"engine": "compiled", "device": "cuda"}, {"trace_every": -1}, {"threads": 0}),
    ],
    "setting": [
        *({"rho": -1}, {"rho": float("inf")}, {"ratio": 0}, {"width": 0}, {"epochs": 1.5}, {"batch_size": 0}),
        *({"importance": "both"}, {"anchor": "soft"}, {"head_importance": "x"}, {"average": "mean"}),
        *({"displaced": "none"}, {"memory": 0}, {"rates": (1.0,)}, {"head": (1, float("nan"))}, {"gain": -1}),
        *({"phantom_points": 0}, {"phantom_points": 301}, {"phantom_shift": -1}, {"ascent": (0, 201)}, {"bias": -1}),
        *({"ascent": (-1, 2)}, {"ascent": (2, 2)}, {"smoothing": 1.1}, {"decoupling": -0.1}),
    ],
}


@pytest.mark.parametrize(("of", "arguments"), [(of, one) for of, bad in REFUSED.items() for one in bad])
def test_a_bad_value_is_named_in_one_line(of, arguments, refuses):
    good = {"settings": [METHODS["sgd"]], "seeds": [0]} if of == "train" else {}
    refuses(ValueError, train if good else ToySetting, **(good | arguments), match=[*arguments][-1])
    refuses(ValueError, intervention, "none", 1.0, match="effect")


def test_the_borders_themselves_are_allowed():
    allowed = dict.fromkeys(("gain", "bias", "decoupling"), 0) | dict.fromkeys(("smoothing", "memory"), 1)
    assert ToySetting(**allowed, phantom_points=300, ascent=(0, 200)).window == (0, 12_000)
