from __future__ import annotations

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


def made(per_cell: int = 40, easy: float = 5.0, hard: float = 1.5, width: int = 12, classes: int = 2):
    """What `linear_probe` takes: a balanced training and a test set of a representation."""
    train, test = balanced(per_cell, classes), balanced(per_cell, classes, seed=3)
    features = [represent(part, {"easy": easy, "hard": hard}, width, seed) for part, seed in ((train, 1), (test, 2))]
    return features[0], train, features[1], test


def part(attributes: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in attributes.items()}


@pytest.fixture(scope="module")
def sets():
    return made(150, easy=6.0, hard=1.0)


def test_probe_reads_what_is_there_and_only_that(sets):
    features, train, test_features, test = sets
    assert linear_probe(*sets, "easy").error < 0.01
    # Two unit Gaussians with means 1 apart in two coordinates: the best error is Phi(-sqrt(2) / 2) = 0.24.
    assert 0.2 < linear_probe(*sets, "hard").error < 0.29
    assert 0.44 < linear_probe(features[:, 10:], train, test_features[:, 10:], test, "hard").error < 0.56


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_act_on_the_features_as_they_come_and_do_not_depend_on_their_shift_and_scale(classes):
    features, train, test_features, test = made(40, easy=3.0, hard=2.0, classes=classes)
    plain, scale, shift = linear_probe(features, train, test_features, test, "hard"), np.geomspace(0.01, 100, 12), 3.0
    given = features * scale + shift, train, test_features * scale + shift, test
    probe = linear_probe(*given, "hard")
    rows = 1 if classes == 2 else classes
    assert probe.weights.shape == (rows, 12) and probe.bias.shape == (rows,)
    logits = given[2].astype(np.float32) @ probe.weights.T + probe.bias
    predicted = logits[:, 0] > 0 if classes == 2 else logits.argmax(1)
    assert np.mean(predicted != test["hard"]) == probe.error and probe.low < probe.error < probe.high
    assert np.array_equal(probe.predict(given[2]), predicted) and probe.examples == 40 * classes**2
    assert probe.regularisation == plain.regularisation and abs(probe.error - plain.error) < 0.005
    assert np.allclose(probe.weights * scale, plain.weights, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_contribution_is_positive_exactly_where_the_probe_is_right(classes):
    features, train, test_features, test = made(40, hard=0.8, classes=classes)
    probe = linear_probe(features, train, test_features, test, "hard")
    contributions, right = probe.contributions(features, train["hard"]), probe.predict(features) == train["hard"]
    assert 0 < right.mean() < 1 and np.array_equal(contributions > 0, right)
    scores = features @ probe.weights.T + probe.bias
    if classes == 2:
        assert np.allclose(np.abs(contributions), np.abs(scores[:, 0]))
    else:
        of_true = np.take_along_axis(scores, train["hard"][:, None], 1)[:, 0]
        assert np.allclose(contributions[right], (of_true - np.sort(scores)[:, -2])[right])
        assert np.allclose(contributions[~right], (of_true - scores.max(1))[~right])
    with pytest.raises(ValueError, match="attribute must be one of"):
        probe.contributions(features, train["hard"] + 1)


def scores(features: np.ndarray, target: np.ndarray, held: np.ndarray, weights: np.ndarray, seen=None) -> list[tuple]:
    """Weighted error and log loss on the held rows at each strength, fitted on the others (standardised by what is
    `seen`, or by them), and the strength."""
    found, inputs = [], StandardScaler().fit(features[~held] if seen is None else seen).transform(features)
    for strength in probes.STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(inputs[~held], target[~held], weights[~held])
        wrong = np.average(model.predict(inputs[held]) != target[held], weights=weights[held])
        losses = log_loss(target[held], model.predict_proba(inputs[held]), sample_weight=weights[held])
        found.append((wrong, losses, strength))
    return found


def test_strength_is_the_one_that_does_best_on_a_held_out_quarter_which_does_not_standardise_the_features():
    """Held-out rows that lie far out: a scaler that has seen them shrinks all others and asks for another strength."""
    features, train, test_features, test = made(40, easy=3.0)
    features, held, ones = features.astype(np.float32), probes._held_out(train), np.ones(160)
    assert held.sum() == 4 * 10 and set(np.bincount(2 * train["easy"][held] + train["hard"][held])) == {10}
    features[held] *= 1000
    probe = linear_probe(features, train, test_features, test, "hard", strengths=probes.STRENGTHS)
    assert probe.regularisation == min(scores(features, train["hard"], held, ones))[-1] and probe.chosen_on == 40
    others = scores(features, train["hard"], held, ones, features)
    assert min(others)[-1] != probe.regularisation  # or the data would tell nothing


@pytest.mark.parametrize("hard, tied", [(1.5, False), (12.0, True)])
def test_the_lowest_error_counts_and_of_a_tie_the_lower_log_loss(hard, tied):
    features, train, test_features, test = made(20, hard=hard)
    found = scores(features.astype(np.float32), train["hard"], probes._held_out(train), np.ones(80))
    best = [one for one in found if one[0] == min(found)[0]]
    assert (len(best) > 1 and best[0] != min(best)) if tied else min(best) != min(found, key=lambda one: one[1])
    probe = linear_probe(features, train, test_features, test, "hard", strengths=probes.STRENGTHS)
    assert probe.regularisation == min(best)[-1]


def test_test_data_and_the_number_of_threads_do_not_enter_the_probe():
    features, train, test_features, test = sets = made(60, easy=0.0, hard=1.0, width=700)
    first = linear_probe(*sets, "hard")
    with threadpool_limits(2):
        again = linear_probe(features, train, -test_features, test, "hard")
    assert np.array_equal(first.weights, again.weights) and first.regularisation == again.regularisation
    assert first.error != again.error


def test_tensors_and_half_precision_are_read_and_dead_units_do_no_harm(sets):
    features, train, test_features, test = sets
    tensors = [{name: torch.tensor(column) for name, column in one.items()} for one in (train, test)]
    given = [torch.tensor(one, dtype=torch.float32, requires_grad=True) for one in (features, test_features)]
    plain = linear_probe(*sets, "hard")
    assert np.array_equal(linear_probe(given[0], tensors[0], given[1], tensors[1], "hard").weights, plain.weights)
    half = given[0].bfloat16(), train, given[1].half(), test
    assert linear_probe(*half, "easy").error < 0.01
    dead = np.zeros((len(features), 3)), np.zeros((len(test_features), 3))
    dead[0][:, 2], dead[1][:, 2] = 0.1, 7.0
    probe = linear_probe(np.hstack([features, dead[0]]), train, np.hstack([test_features, dead[1]]), test, "hard")
    assert np.allclose(probe.weights[0, 12:], 0, atol=1e-6) and probe.error == plain.error


def test_unbalanced_sets_and_missing_combinations_are_refused_unless_allowed(sets, refuses):
    features, train, test_features, test = sets
    agree = train["easy"] == train["hard"]
    for rows, message in (
        (agree | (np.arange(len(agree)) % 5 == 0), "equally often: easy = ., hard = . occurs .* times, easy = ., hard"),
        (agree, "every combination.*: easy = 0, hard = 1 occurs 0 times"),
    ):
        for given in ((features[rows], part(train, rows), *sets[2:]), (*sets[2:], features[rows], part(train, rows))):
            refuses(ValueError, linear_probe, *given, "hard", match=message)
            assert linear_probe(*given, "hard", allow_unbalanced=True)


def bad_inputs() -> list:
    features, train, test_features, test = made(10)
    good = dict(features=features, attributes=train, test_features=test_features, test_attributes=test)
    nan = np.where(np.arange(12) == 2, np.nan, features[:1])
    both = {"attributes": train, "test_attributes": test}
    coded = {f"hard={code}": {**test, "hard": code * test["hard"]} for code in (0, 2)}
    changes = (
        ({"features": np.vstack([nan, features[1:]])}, "1 entries"),
        ({"features": features[0]}, "shape"),
        ({"features": features[:5]}, "attributes"),
        ({"test_features": test_features[:, :3]}, "columns"),
        ({"attribute": "colour"}, "attribute must be one of easy, hard, not 'colour'"),
        ({"test_attributes": {"hard": test["hard"]}}, r"not {'hard': \[0, 1\]}"),
        ({"attributes": {name: column / 2 for name, column in train.items()}}, "integers"),
        ({"attributes": {}}, "none"),
        ({"strengths": []}, "strengths"),
        ({"strengths": [0.0]}, "strengths"),
        ({"strengths": [float("inf")]}, "strengths"),
        ({name: {**one, "hard": 0 * one["hard"]} for name, one in both.items()}, "two values"),
        ({"test_attributes": {**test, "hard": 2 * test["hard"] - 1}}, r"'hard': \[0, 1\]}, not .*'hard': \[-1, 1\]}"),
        ({"test_attributes": {**test, "easy": test["easy"] + 1}}, r"values of attributes, .*, not {'easy': \[1, 2\]"),
        ({"test_attributes": coded["hard=2"], "allow_unbalanced": True}, r"'hard': \[0, 2\]}"),
        ({"test_attributes": coded["hard=0"]}, r"'hard': \[0\]}"),
    )
    return [pytest.param({**good, "attribute": "hard", **change}, message, id=message) for change, message in changes]


@pytest.mark.parametrize("arguments, message", bad_inputs())
def test_wrong_input_is_refused_in_one_line(arguments, message, refuses):
    refuses(ValueError, linear_probe, **arguments, match=message)


def test_smallest_balanced_set_is_enough():
    assert 0 <= linear_probe(*made(2), "easy").error <= 1
    with pytest.raises(ValueError, match="two examples"):
        linear_probe(*made(1), "easy")


def test_grid_is_widened_by_decades_while_its_end_is_best_and_the_end_is_told(monkeypatch, sets):
    tried, fit = [], LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, *given: tried.append(self.C) or fit(self, *given))
    inner = linear_probe(*sets, "hard")
    assert not inner.at_end and tried == [*probes.STRENGTHS, inner.regularisation], "no wider grid is tried"
    features, train, *test = made(40, hard=30.0)
    for sign, end in ((1, 1e3), (-1, 1e-7)):  # turned round, the less is learned the better
        features[probes._held_out(train)] *= sign
        del tried[:]
        probe = linear_probe(features, train, *test, "hard")
        assert probe.regularisation == pytest.approx(end) and probe.at_end
        assert np.allclose(np.diff(np.log10(sorted(set(tried)))), 1) and pytest.approx(end) in tried
    for strengths, at_end in (([0.01, 1.0, 10.0], False), ([1.0, 10.0], True), ([0.1, 1.0], True)):
        found = linear_probe(*sets, "hard", strengths=strengths)
        assert found.regularisation in strengths
        assert found.at_end == (found.regularisation in (strengths[0], strengths[-1])) and (found.at_end or not at_end)


def test_every_combination_weighs_the_same_in_a_weighted_probe(sets):
    features, train, test_features, test = made(20, easy=3.0, width=40)
    cell = 2 * train["easy"] + train["hard"]
    rows = np.concatenate([np.flatnonzero(cell == kind)[: 20 - 3 * kind] for kind in range(4)])
    weights = (len(rows) / 4 / np.bincount(cell[rows]))[cell[rows]]
    features, cells = features.astype(np.float32), part(train, rows)
    given, held = (features[rows], cells, test_features, test), probes._held_out(cells)
    weighted = linear_probe(*given, "hard", weighted=True, strengths=probes.STRENGTHS)
    assert weighted.regularisation == min(scores(features[rows], cells["hard"], held, weights))[-1]
    scaler = StandardScaler().fit(features[rows])
    model = LogisticRegression(C=weighted.regularisation, max_iter=2000)
    model.fit(scaler.transform(features[rows]), cells["hard"], weights)
    assert np.allclose(weighted.weights, model.coef_ / scaler.scale_, rtol=1e-3, atol=1e-5)
    plain, weighted = (linear_probe(*sets, "hard", weighted=given) for given in (False, True))
    assert np.array_equal(plain.weights, weighted.weights), "a balanced set stays as it is"
    some = (train["easy"] == 0) | (train["hard"] == 0)
    with pytest.raises(ValueError, match="every combination: easy = 1, hard = 1 occurs 0 times"):
        linear_probe(features[some], part(train, some), test_features, test, "hard", weighted=True)
