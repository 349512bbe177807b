"""Appendix D: closed forms, the expansion of the log ratio, and what it rests on."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch.nn import CrossEntropyLoss, SoftMarginLoss

from book import theory
from book.claims import Outcome
from book.theory import (
    RELU_FIT,
    batch_effect,
    checks,
    conv_subject,
    expand,
    fitted,
    layer_terms,
    layered,
    log_weights,
    logistic_error,
    reach,
    relu_subject,
    survey,
    toy_subjects,
    typical_error,
)
from lib.importance import gini, real_and_phantom_weights
from lib.models import ConvNet, ToyNet
from lib.optim import LSAM, SAM
from lib.stats import FEW
from lib.toy.ensemble import features, lsam, train

EXACT = 1e-12  # of closed forms
SEEDS, SIZES = st.integers(0, 2**31 - 1), st.integers(1, 7)


def labelled(points: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (points, *shape) and alternating labels."""
    y = torch.where(torch.arange(points) % 2 == 0, 1.0, -1.0)
    return torch.randn(points, *shape, dtype=torch.float64), y


@settings(max_examples=25, deadline=None)
@given(SEEDS, SIZES, st.lists(SIZES, min_size=1, max_size=6), st.booleans())
def test_examples_2_to_4_are_the_squared_gradient_norm_of_each_layer(seed, points, widths, relu):
    torch.manual_seed(seed)
    net, (x, _) = layered((*widths, 1), relu).double(), labelled(points, widths[0])
    weights = list(net.parameters())
    squares = [[g.square().sum() for g in torch.autograd.grad(net(one[None])[0], weights)] for one in x]
    terms = layer_terms(net, x)
    torch.testing.assert_close(terms, torch.tensor(squares, dtype=torch.float64), rtol=EXACT, atol=EXACT)


def test_all_closed_forms_agree_with_automatic_differentiation():
    found = theory.example_differences(2)
    assert {name[0] for name in found} == set("1234")
    assert max(found.values()) < EXACT


@pytest.mark.parametrize(
    ("kind", "perturbed", "batch_size"),
    [("toy", "head", 1), ("toy", "head", 4), ("toy", "all", 1), ("toy", "all", 4), ("conv", "all", 3)],
)
def test_shift_is_that_of_the_optimizers_phantom(kind, perturbed, batch_size):
    """Two outputs count as the logit of their difference."""
    torch.manual_seed(0)
    net, shape = (ToyNet(6), (4,)) if kind == "toy" else (ConvNet(2, height=8, width=8), (3, 8, 8))
    (x, y), net = labelled(10, *shape), net.double()
    optimizer = LSAM(net, rho=0.4, lr=1.0) if perturbed == "head" else SAM(net.parameters(), rho=0.4, lr=1.0)
    labels = y if kind == "toy" else ((1 + y) / 2).long()
    loss = SoftMarginLoss() if kind == "toy" else CrossEntropyLoss()
    real, phantom = real_and_phantom_weights(net, optimizer, zip(*(one.split(batch_size) for one in (x, labels))), loss)
    e = expand(net, x, y, [0.4], perturbed, batch_size)
    np.testing.assert_allclose(e["logistic"], (phantom / real).log(), rtol=1e-9, atol=1e-12)


def test_lsams_log_ratio_is_its_first_order_with_the_exponential_loss():
    torch.manual_seed(0)
    net, (x, y) = ToyNet(8), labelled(20, 4)
    e = expand(net, x, y, [0.01, 1.0, 30.0], "head")
    np.testing.assert_allclose(e["exponential"], e["first"], rtol=1e-9)
    np.testing.assert_allclose(e["slope"], e["norm"], rtol=1e-12)
    assert np.abs(e["second"]).max() < 1e-9


@pytest.mark.parametrize(("widths", "left"), [((3, 5, 1), 0), ((3, 6, 6, 1), 8)])
def test_two_orders_leave_nothing_of_two_linear_layers_and_a_third_order_of_more(widths, left):
    torch.manual_seed(0)
    net, (x, y) = layered(widths, relu=False).double(), labelled(8, 3)
    e = expand(net, x, y, [0.01, 0.02]).eval("left = shift - first - second")["left"].abs()
    assert (e < 1e-12).all() if not left else np.allclose(e[0.02] / e[0.01], left, rtol=0.2)


@settings(max_examples=60, deadline=None)
@given(st.floats(-20, 40), st.floats(1e-3, 60))
def test_logistic_log_ratio_is_below_the_shift_and_below_its_limit(margin, shift):
    error = logistic_error(np.float64(margin), np.float64(shift))
    assert -1e-9 <= error <= 1
    assert shift * (1 - error) <= -log_weights(np.float64(margin), "logistic") + 1e-9


def test_logistic_log_ratio_starts_with_slope_one_minus_lambda():
    margin = np.linspace(-3, 6, 10)
    weight = np.exp(log_weights(margin, "logistic"))
    np.testing.assert_allclose(logistic_error(margin, 1e-6), weight, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 6))
def test_in_a_batch_the_first_order_is_a_projection_with_a_positive_weighted_mean(seed, batch_size):
    torch.manual_seed(seed)
    net, (x, y) = layered((3, 6, 1)), labelled(batch_size, 3)
    e = expand(net, x, y, [0.1], batch_size=batch_size)
    assert np.all(np.abs(e["slope"]) <= e["norm"] * (1 + 1e-9) + 1e-12)
    assert np.exp(log_weights(e["margin"], "logistic")) @ e["slope"] >= -1e-12


def test_tiny_importance_weights_still_give_a_direction():
    net = layered((1, 1), relu=False)
    torch.nn.init.constant_(net[-1].weight, 2000.0)
    e = expand(net, torch.ones(2, 1), torch.ones(2), [0.5], batch_size=2)
    np.testing.assert_allclose(e["slope"], 1.0)


def test_an_input_without_gradient_stays_where_it_is():
    net = layered((2, 3, 1))
    e = expand(net, torch.zeros(1, 2), torch.ones(1), [0.5])
    assert (e[["norm", "slope", "shift"]] == 0).all(axis=None)


def test_reach_finds_where_an_error_crosses_the_tolerance_in_the_median_over_examples():
    crosses = {1.0: [0.01, 0.1, 1.0], 5.0: [-0.002, -0.02, -0.2], 0.1: [0.5, 0.6, 0.7], 10.0: [0.0, 0.01, 0.02]}
    errors = np.array([*crosses.values(), *list(crosses.values())[1:]])
    examples = pd.MultiIndex.from_tuples(
        [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2)], names=["net", "example"]
    )
    table = pd.DataFrame(errors, examples, pd.Index([0.1, 1.0, 10.0], name="rho")).stack()
    found = pd.DataFrame({"logistic": 1 - table, "first": 1.0})
    np.testing.assert_allclose(reach(found, "logistic", 0.1), [1.0, 10 ** np.log10(5), 0.1, 10.0, 10 ** np.log10(5)])


def test_one_example_of_each_batch_is_fitted_worst():
    rows = pd.MultiIndex.from_product([range(2), range(5)], names=["net", "example"])
    found = pd.DataFrame({"margin": [3.0, 1, 2, 5, 4, 0, 1, -2, -5, 4]}, index=rows)
    expected = [False, True, False, False, True, False, False, True, True, False]
    assert theory.worst_fitted(found, 3).tolist() == expected


def test_batch_effect_compares_weights_alone_and_in_the_batch():
    subjects = [relu_subject(seed) for seed in (0, 1)]
    alone, together = (survey(subjects, 10, [0.3], "all", size).droplevel("rho") for size in (1, 5))
    effect = batch_effect(alone, together, 5)
    assert effect["spread"].shape == effect["gini"].shape == (3, 2) and effect["falls"].shape == (2,)
    second = together.loc[1]
    margins = second["margin"], alone.loc[1].eval("margin - shift"), second.eval("margin - shift")
    logs = [log_weights(margin.to_numpy(), "logistic") for margin in margins]
    np.testing.assert_allclose(effect["spread"][:, 1], np.std(logs, axis=1))
    np.testing.assert_allclose(effect["gini"][:, 1], gini(np.exp(logs)))
    expected = spearmanr(second["norm"], second["logistic"]).statistic
    assert effect["correlation"][1, 1] == pytest.approx(expected) and np.all(effect["correlation"][0] > 0.9)
    falling = together[together["slope"] < 0].reset_index()
    assert falling.groupby("net").size().tolist() == (10 * effect["falls"]).round().tolist()
    batches = [together.loc[net].iloc[i // 5 * 5 :][:5] for net, i in zip(falling["net"], falling["example"])]
    worst = [batch["label"][batch["margin"].idxmin()] for batch in batches]
    assert effect["opposite"] == np.mean(falling["label"] != worst)


def test_typical_errors_are_medians_over_fitted_examples():
    e = survey([relu_subject(0)], 20, [0.1, 0.4], "all")
    small, one = e.xs(0.1, level="rho"), e.xs(0.4, level="rho")
    fits = one[one["margin"] > 0]
    expected = np.median(np.abs(1 - fits["logistic"] / fits["first"]))
    assert 0 < len(fits) < 20 and typical_error(e, 0.4, "logistic") == pytest.approx(expected)
    second = np.median(np.abs(small["second"] / small["first"]))
    assert theory.typical_second_order(e, 0.1) == pytest.approx(second)
    assert np.isnan(typical_error(e.assign(margin=-1.0), 0.1, "logistic")).tolist() == [True], "none is fitted"


HOLDS, UNDECIDED, CONTRADICTED, _ = Outcome
NETS = {"toy": np.linspace(0.02, 0.04, FEW), "conv": np.linspace(0.05, 0.07, FEW)}  # typical errors


def judged(difference: float = 1e-13, inexact: float = 1e-10, tolerance: float = 0.1, **errors) -> list:
    return checks(difference, inexact, errors or {"SAM": NETS}, tolerance)


@pytest.mark.parametrize(
    ("difference", "inexact", "outcomes"),
    [(9e-13, 9e-10, [HOLDS, HOLDS]), (1e-12, 9e-10, [CONTRADICTED, HOLDS]), (9e-13, 1e-9, [HOLDS, CONTRADICTED])],
)
def test_identities_are_judged_below_rounding_and_count_for_nothing(difference, inexact, outcomes):
    formulas, first_order, main = judged(difference, inexact)
    assert [formulas.outcome, first_order.outcome] == outcomes
    assert formulas.trivial and first_order.trivial and main.main and not main.trivial
    assert f"{difference:.0e}" in formulas.what and f"{inexact:.0e}" in first_order.what


@pytest.mark.parametrize(
    ("of", "outcome"),
    [
        (np.full(FEW, 0.125), UNDECIDED),  # the border itself
        (np.full(FEW, 0.1249), HOLDS),
        (np.linspace(0.01, 0.03, FEW), HOLDS),
        (np.linspace(0.01, 0.03, FEW - 1), UNDECIDED),
        (np.r_[np.full(FEW - 1, 0.02), 0.5], UNDECIDED),  # the mean is below, and the interval reaches beyond
        (np.linspace(0.2, 0.3, FEW), CONTRADICTED),
    ],
)
def test_first_order_holds_where_the_whole_interval_is_below_the_tolerance(of, outcome):
    *_, case = judged(tolerance=0.125, case={"net": of})
    assert case.outcome is outcome and case.what == "case below 12.5 % for net" and case.effect.mean == np.mean(of)


def test_a_case_is_that_of_the_kind_of_net_that_is_furthest_from_holding():
    wide, narrow = np.r_[np.zeros(FEW - 1), 0.4], np.full(FEW, 0.09)  # the mean of `wide` is the lower one
    nets = {"narrow": narrow, "wide": wide, "good": np.zeros(FEW)}
    *_, case, other = judged(one=nets, other={"good": narrow / 2, "fair": narrow})
    assert case.what == "one below 10 % for narrow, wide, good (2 of 3)" and case.effect.mean == pytest.approx(0.05)
    assert other.what == "other below 10 % for good, fair (2 of 2)" and other.effect.mean == pytest.approx(0.09)
    assert (case.outcome, case.main, other.outcome, other.main) == (UNDECIDED, True, HOLDS, False)


def test_toy_subjects_are_the_engines_nets():
    result = train([lsam(0.5, epochs=1, width=12)], [3, 4], (0, 1.0), keep_nets=True)
    for s, subject in enumerate(toy_subjects(result, 1)):
        x = subject.x.numpy()
        for i in range(2):
            expected = features(result.nets[0][s, 1, i], x[:, 2 * i : 2 * i + 2])
            np.testing.assert_allclose(subject.net.features(subject.x)[:, i].detach(), expected, atol=2e-6)
        np.testing.assert_allclose(subject.net.head.weight[0].detach(), result.heads[0, s, 1], rtol=1e-6)


def test_training_fits_the_labels_and_repeats_itself():
    start = relu_subject(0)
    first, again = (fitted(start, 0, steps=5, batch_size=5, lr=0.1, momentum=0.9) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(first.net.parameters(), again.net.parameters()))
    assert torch.equal(start.net[-1].weight, relu_subject(0).net[-1].weight)
    trained = fitted(start, 0, **RELU_FIT)
    assert (trained.y * trained.net(trained.x) > 0).float().mean() > 0.97


def test_images_are_gratings_of_mean_zero_that_say_their_label():
    subject = conv_subject(0, images=10)
    assert subject.x.shape == (10, 3, 64, 32) and abs(subject.x.mean().item()) < 0.01
    rows = subject.x.mean(dim=(1, 3)).var(1) - subject.x.mean(dim=(1, 2)).var(1)
    assert torch.equal(torch.sign(rows), subject.y)


def test_a_survey_has_the_nets_first():
    net, x, y = relu_subject(1)
    e = survey([relu_subject(0), relu_subject(1)], 4, [0.1, 0.2, 0.4], "all")
    assert e.index.names == ["net", "rho", "example"] and len(e) == 2 * 3 * 4
    pd.testing.assert_frame_equal(e.loc[1], expand(net, x[:4], y[:4], [0.1, 0.2, 0.4]))


@pytest.mark.parametrize(
    "arguments", [{"perturbed": "body"}, {"batch_size": 0}, {"radii": []}, {"radii": [0.0]}, {"y": torch.zeros(3)}]
)
def test_what_makes_no_sense_is_refused(arguments):
    given_ = {"x": torch.ones(3, 4), "y": torch.ones(3), "radii": [0.1], **arguments}
    with pytest.raises(ValueError, match="^" + next(iter(arguments)) + " must"):
        expand(ToyNet(4), **given_)
