from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lib import probes
from lib.probes import linear_probe


def balanced(per_cell: int, classes: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    cells = np.array([(first, second) for first in range(classes) for second in range(classes)] * per_cell)
    cells = np.random.default_rng(seed).permutation(cells)
    return {"easy": cells[:, 0], "hard": cells[:, 1]}


def represent(
    attributes: dict[str, np.ndarray], strengths: dict[str, float], width: int = 12, seed: int = 1
) -> np.ndarray:
    """Gaussian features (n, width) that hold each attribute along directions of its own."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(len(attributes["easy"]), width))
    for row, (name, strength) in enumerate(strengths.items()):
        classes = attributes[name].max() + 1
        features[:, 5 * row : 5 * row + classes] += strength * np.eye(classes)[attributes[name]]
    return features


@pytest.fixture(scope="module")
def sets():
    train, test = balanced(100), balanced(200, seed=3)
    strengths = {"easy": 6.0, "hard": 1.0}
    return represent(train, strengths), train, represent(test, strengths, seed=2), test


def test_probe_reads_what_is_there_and_only_that(sets):
    features, train, test_features, test = sets
    easy, hard = (linear_probe(features, train, test_features, test, name) for name in ("easy", "hard"))
    assert easy.error < 0.01
    # Two unit Gaussians with means 1 apart in two coordinates: the best error is Phi(-sqrt(2) / 2) = 0.24.
    assert 0.2 < hard.error < 0.29
    nothing = linear_probe(features[:, 10:], train, test_features[:, 10:], test, "hard")
    assert 0.45 < nothing.error < 0.55


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_weights_act_on_the_features_as_they_come(classes):
    train, test = balanced(30, classes), balanced(40, classes, seed=4)
    shift, scale = np.linspace(-50, 80, 12), np.geomspace(0.01, 100, 12)
    features, test_features = (
        represent(part, {"easy": 3.0, "hard": 2.0}, seed=seed) * scale + shift for part, seed in ((train, 1), (test, 2))
    )
    probe = linear_probe(features, train, test_features, test, "hard")
    rows = 1 if classes == 2 else classes
    assert probe.weights.shape == (rows, 12) and probe.bias.shape == (rows,)
    logits = test_features.astype(np.float32) @ probe.weights.T + probe.bias
    predicted = logits[:, 0] > 0 if classes == 2 else logits.argmax(1)
    assert np.mean(predicted != test["hard"]) == probe.error
    assert np.array_equal(probe.predict(test_features), predicted)


@pytest.mark.parametrize("classes", [2, 3])
def test_probing_error_does_not_depend_on_shift_and_scale_of_the_features(classes):
    train, test = balanced(40, classes), balanced(40, classes, seed=4)
    features, test_features = (
        represent(part, {"easy": 3.0, "hard": 2.0}, seed=seed) for part, seed in ((train, 1), (test, 2))
    )
    scale, shift = np.geomspace(0.01, 100, 12), 3.0
    plain = linear_probe(features, train, test_features, test, "hard")
    scaled = linear_probe(features * scale + shift, train, test_features * scale + shift, test, "hard")
    assert scaled.regularisation == plain.regularisation and abs(scaled.error - plain.error) < 0.005
    assert np.allclose(scaled.weights * scale, plain.weights, rtol=0.05, atol=0.01)


def test_probe_agrees_with_one_fitted_by_gradient_descent(sets):
    features, train, test_features, test = sets
    probe = linear_probe(features, train, test_features, test, "hard", strengths=[0.1])
    inputs = torch.tensor(features, dtype=torch.float64)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0, correction=0)
    target = torch.tensor(train["hard"], dtype=torch.float64)
    weights, bias = (torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in (12, ()))
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = inputs @ weights + bias
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        loss = 0.1 * loss + 0.5 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    deviation = features.std(0)
    assert np.allclose(probe.weights[0] * deviation, weights.detach().numpy(), atol=2e-3)


def test_strength_is_the_one_that_does_best_on_held_out_probe_data():
    train, test = balanced(15), balanced(200, seed=3)
    features, test_features = (
        represent(part, {"easy": 0.0, "hard": 1.5}, 400, seed) for part, seed in ((train, 1), (test, 2))
    )
    chosen = linear_probe(features, train, test_features, test, "hard")
    assert chosen.regularisation in probes.STRENGTHS
    held = probes._held_out(train, 0)
    assert held.sum() == 4 * 4 and set(np.bincount(2 * train["easy"][held] + train["hard"][held])) == {4}
    errors = {}
    for strength in probes.STRENGTHS:
        rest, out = ({name: column[rows] for name, column in train.items()} for rows in (~held, held))
        probe = linear_probe(features[~held], rest, features[held], out, "hard", strengths=[strength])
        errors[strength] = probe.error
    assert errors[chosen.regularisation] <= min(errors.values()) + 1 / 16


def test_test_data_do_not_enter_the_probe(sets):
    features, train, test_features, test = sets
    first = linear_probe(features, train, test_features, test, "hard")
    second = linear_probe(features, train, -test_features, test, "hard")
    assert np.array_equal(first.weights, second.weights) and first.regularisation == second.regularisation
    assert first.error != second.error


def test_same_input_gives_the_same_probe_and_the_seed_only_chooses_what_is_held_out(sets):
    first, second = (linear_probe(*sets, "hard", seed=3) for _ in range(2))
    assert np.array_equal(first.weights, second.weights) and first.error == second.error
    fixed = [linear_probe(*sets, "hard", strengths=[0.1], seed=seed).weights for seed in (0, 1)]
    assert np.array_equal(*fixed)


def test_tensors_and_arrays_give_the_same_probe(sets):
    features, train, test_features, test = sets
    as_tensors = [
        torch.tensor(features, dtype=torch.float32, requires_grad=True),
        {name: torch.tensor(column) for name, column in train.items()},
        torch.tensor(test_features, dtype=torch.float32),
        {name: torch.tensor(column) for name, column in test.items()},
    ]
    assert np.array_equal(linear_probe(*as_tensors, "hard").weights, linear_probe(*sets, "hard").weights)


def test_dead_units_get_no_weight_and_do_no_harm(sets):
    features, train, test_features, test = sets
    dead = np.zeros((len(features), 3)), np.zeros((len(test_features), 3))
    dead[0][:, 2], dead[1][:, 2] = 0.1, 7.0
    features, test_features = np.hstack([features, dead[0]]), np.hstack([test_features, dead[1]])
    probe = linear_probe(features, train, test_features, test, "hard")
    assert np.allclose(probe.weights[0, 12:], 0, atol=1e-6)
    assert probe.error == linear_probe(*sets, "hard").error


def test_unbalanced_sets_are_refused_unless_allowed(sets):
    features, train, test_features, test = sets
    most = np.flatnonzero((train["easy"] == train["hard"]) | (np.arange(len(features)) % 5 == 0))
    unbalanced = {name: column[most] for name, column in train.items()}
    with pytest.raises(ValueError, match="balanced.*easy = . *, hard = .* times"):
        linear_probe(features[most], unbalanced, test_features, test, "hard")
    with pytest.raises(ValueError, match="balanced"):
        linear_probe(test_features, test, features[most], unbalanced, "hard")
    assert linear_probe(features[most], unbalanced, test_features, test, "hard", allow_unbalanced=True)


def test_missing_combinations_are_named(sets):
    features, train, test_features, test = sets
    equal = np.flatnonzero(train["easy"] == train["hard"])
    correlated = {name: column[equal] for name, column in train.items()}
    for call in (
        lambda: linear_probe(features[equal], correlated, test_features, test, "hard"),
        lambda: probes.check_balance(correlated),
        lambda: probes.balanced_indices(correlated),
        lambda: probes.balanced_indices(correlated, 3),
    ):
        with pytest.raises(ValueError, match="easy = 0, hard = 1.*easy = 1, hard = 0") as error:
            call()
        assert "\n" not in str(error.value)
    assert linear_probe(features[equal], correlated, test_features, test, "hard", allow_unbalanced=True)


def test_unbalanced_probe_data_mislead():
    train = balanced(200)
    test = balanced(200, seed=3)
    strengths = {"easy": 5.0, "hard": 0.0}  # a representation that holds nothing of the hard attribute
    features, test_features = represent(train, strengths), represent(test, strengths, seed=2)
    equal, test_equal = (np.flatnonzero(part["easy"] == part["hard"]) for part in (train, test))
    misled = linear_probe(
        features[equal],
        {name: column[equal] for name, column in train.items()},
        test_features[test_equal],
        {name: column[test_equal] for name, column in test.items()},
        "hard",
        allow_unbalanced=True,
    )
    assert misled.error < 0.01
    assert linear_probe(features, train, test_features, test, "hard").error > 0.45


@pytest.mark.parametrize("per_cell", [1, 7, 30])
def test_balanced_indices_take_every_combination_equally_often(per_cell):
    random = np.random.default_rng(0)
    attributes = {"a": random.integers(0, 2, 400), "b": torch.tensor(random.choice([3, 5, 9], 400))}
    indices = probes.balanced_indices(attributes, per_cell, seed=1)
    assert len(set(indices)) == len(indices) == 6 * per_cell
    probes.check_balance({name: column[indices] for name, column in attributes.items()})
    assert np.array_equal(indices, probes.balanced_indices(attributes, per_cell, seed=1))
    assert not np.array_equal(indices, probes.balanced_indices(attributes, per_cell, seed=2))


def test_balanced_indices_take_by_default_all_that_the_rarest_combination_has():
    attributes = {"a": np.array([0] * 9 + [1] * 9), "b": np.array([0] * 5 + [1] * 4 + [0] * 6 + [1] * 3)}
    assert len(probes.balanced_indices(attributes)) == 4 * 3
    with pytest.raises(ValueError, match="a = 1, b = 1 has 3"):
        probes.balanced_indices(attributes, 4)


def test_balanced_indices_reach_every_example():
    attributes = {"a": np.arange(40) % 2, "b": np.arange(40) // 20}
    seen = set()
    for seed in range(60):
        seen.update(probes.balanced_indices(attributes, 2, seed))
    assert seen == set(range(40))


def bad_inputs() -> list:
    train, test = balanced(10), balanced(10, seed=3)
    good = dict(
        features=represent(train, {}),
        attributes=train,
        test_features=represent(test, {}),
        test_attributes=test,
        attribute="hard",
    )
    nan = good["features"].copy()
    nan[3, 2] = np.nan
    changes = (
        ({"features": nan}, "1 entries"),
        ({"features": good["features"][0]}, "shape"),
        ({"features": good["features"][:5]}, "attributes"),
        ({"test_features": good["test_features"][:, :3]}, "columns"),
        ({"attribute": "colour"}, "colour"),
        ({"test_attributes": {"hard": test["hard"]}}, "both sets"),
        ({"attributes": {name: column / 2 for name, column in train.items()}}, "integers"),
        ({"attributes": {}}, "none"),
        ({"strengths": []}, "strengths"),
        ({"strengths": [0.0]}, "strengths"),
        ({"attributes": {**train, "hard": train["hard"] * 0}, "allow_unbalanced": True}, "two values"),
        ({"test_attributes": {**test, "hard": 2 * test["hard"] - 1}}, r"hard has \[-1, 1\] against \[0, 1\]"),
        ({"test_attributes": {**test, "hard": test["hard"] + 1}}, r"hard has \[1, 2\] against \[0, 1\]"),
        ({"test_attributes": {**test, "easy": test["easy"] + 1}}, r"easy has \[1, 2\] against \[0, 1\]"),
        ({"test_attributes": {**test, "hard": 0 * test["hard"]}}, r"hard has \[0\] against \[0, 1\]"),
        ({"attributes": {**train, "hard": 0 * train["hard"]}, "weighted": True}, "two values"),
        ({"strengths": [float("inf")]}, "strengths"),
    )
    return [
        pytest.param({**good, **change}, message, id=f"{next(iter(change))}-{message}") for change, message in changes
    ]


@pytest.mark.parametrize("arguments, message", bad_inputs())
def test_wrong_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        linear_probe(**arguments)
    assert "\n" not in str(error.value)


def test_codes_are_compared_in_sets_that_need_not_be_balanced_too():
    train, test = balanced(10, 3), balanced(10, 2)
    with pytest.raises(ValueError, match="test_attributes must hold the values"):
        linear_probe(represent(train, {}), train, represent(test, {}), test, "hard", allow_unbalanced=True)


def test_features_of_half_precision_are_read():
    train, test = balanced(10), balanced(10, seed=3)
    features, test_features = (represent(part, {"hard": 9.0}) for part in (train, test))
    half = torch.tensor(features, dtype=torch.bfloat16)
    assert linear_probe(half, train, torch.tensor(test_features).half(), test, "hard").error == 0
    assert np.array_equal(probes._matrix("features", half), half.float().numpy())


def test_grid_is_widened_while_its_end_is_best_and_the_end_is_told():
    train, test = balanced(40), balanced(40, seed=3)
    nothing, everything = {"easy": 5.0, "hard": 0.0}, {"easy": 5.0, "hard": 30.0}
    sets = [represent(train, nothing), train, represent(test, nothing, seed=2), test]
    least = linear_probe(*sets, "hard", seed=1)
    fixed = linear_probe(*sets, "hard", strengths=[10.0, 1e-2, 1.0], seed=1)
    sure = linear_probe(represent(train, everything), train, represent(test, everything), test, "hard")
    assert fixed.at_end == (fixed.regularisation in (1e-2, 10.0)) and fixed.regularisation in (1e-2, 1.0, 10.0)
    assert sure.regularisation == pytest.approx(probes.WIDEST[1]) and sure.at_end and sure.error == 0
    for probe in (least, sure):
        assert probes.WIDEST[0] * 0.99 < probe.regularisation < probes.WIDEST[1] * 1.01
        assert probe.chosen_on == 40 and probe.at_end == (not 2e-7 < probe.regularisation < 5e2)


def test_no_wider_grid_is_tried_where_an_inner_strength_is_best(monkeypatch, sets):
    tried, fit = [], LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, *given: tried.append(self.C) or fit(self, *given))
    probe = linear_probe(*sets, "hard")
    assert not probe.at_end and tried[:-1] == list(probes.STRENGTHS) and tried[-1] == probe.regularisation


def test_every_combination_weighs_the_same_in_a_weighted_probe():
    balanced_set, test = balanced(12), balanced(200, seed=3)
    features = represent(balanced_set, {"easy": 3.0, "hard": 1.5})
    cell = 2 * balanced_set["easy"] + balanced_set["hard"]
    rows = np.concatenate([np.repeat(np.flatnonzero(cell == kind), 1 + 3 * kind) for kind in range(4)])
    train = {name: column[rows] for name, column in balanced_set.items()}
    weights = probes._weights(train)
    assert weights.mean() == pytest.approx(1)
    assert [weights[cell[rows] == kind].sum() for kind in range(4)] == pytest.approx([len(rows) / 4] * 4)
    sets = features[rows], train, represent(test, {"easy": 3.0, "hard": 1.5}, seed=2), test
    weighted = linear_probe(*sets, "hard", weighted=True, strengths=[0.1])
    scaler = StandardScaler().fit(features[rows])
    model = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(features[rows]), train["hard"], weights)
    assert np.allclose(weighted.weights, model.coef_ / scaler.scale_, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="must be balanced"):
        linear_probe(*sets, "hard")


def test_weights_change_nothing_in_a_balanced_set_and_all_combinations_must_come(sets):
    plain, weighted = (linear_probe(*sets, "hard", weighted=given) for given in (False, True))
    assert np.array_equal(plain.weights, weighted.weights)
    one_missing = (sets[1]["easy"] == 0) | (sets[1]["hard"] == 0)
    train = {name: column[one_missing] for name, column in sets[1].items()}
    with pytest.raises(ValueError, match="missing: easy = 1, hard = 1"):
        linear_probe(sets[0][one_missing], train, *sets[2:], "hard", weighted=True)


def test_smallest_balanced_set_is_enough():
    train, test = balanced(2), balanced(2, seed=1)
    assert 0 <= linear_probe(represent(train, {}), train, represent(test, {}), test, "easy").error <= 1
    with pytest.raises(ValueError, match="two examples"):
        linear_probe(represent(balanced(1), {}), balanced(1), represent(test, {}), test, "easy")


def test_wide_features_take_seconds():
    train, test = balanced(250), balanced(250, seed=3)
    features, test_features = (
        np.maximum(represent(part, {"easy": 3.0, "hard": 1.0}, 2048, seed), 0) for part, seed in ((train, 1), (test, 2))
    )
    begun = time.process_time()
    linear_probe(features, train, test_features, test, "hard")
    assert time.process_time() - begun < 10


def test_result_does_not_depend_on_the_number_of_threads():
    train, test = balanced(60), balanced(60, seed=3)
    features, test_features = (represent(part, {"hard": 1.0}, 700) for part in (train, test))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(linear_probe(features, train, test_features, test, "hard").weights)
    assert np.array_equal(*found)


def test_what_is_held_out_to_choose_the_strength_does_not_standardise_the_features():
    """Held-out rows that lie far out: a scaler that has seen them shrinks all others and asks for another strength."""
    train, test = balanced(40), balanced(40, seed=4)
    features = represent(train, {"easy": 3.0, "hard": 1.5}, seed=1).astype(np.float32)
    held = probes._held_out(train, seed=0)
    features[held] *= 1000
    scaler = StandardScaler().fit(features[~held])
    scores = []
    for strength in probes.STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(
            scaler.transform(features[~held]), train["hard"][~held]
        )
        inputs, truth = scaler.transform(features[held]), train["hard"][held]
        scores.append((1 - model.score(inputs, truth), log_loss(truth, model.predict_proba(inputs)), strength))
    probe = linear_probe(features, train, represent(test, {"easy": 3.0, "hard": 1.5}, seed=2), test, "hard")
    assert probe.regularisation == min(scores)[-1]
    all_rows = StandardScaler().fit(features)
    other = min(
        (
            log_loss(
                train["hard"][held],
                LogisticRegression(C=c, max_iter=2000)
                .fit(all_rows.transform(features[~held]), train["hard"][~held])
                .predict_proba(all_rows.transform(features[held])),
            ),
            c,
        )
        for c in probes.STRENGTHS
    )[-1]
    assert other != probe.regularisation  # or the data would tell nothing
