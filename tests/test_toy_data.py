"""The toy generator of Appendix E."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.toy import ToyConstants, sample

CONSTANTS = st.builds(
    ToyConstants,
    complexity=st.floats(0, 720),
    inner=st.floats(0, 0.5),
    hard_scale=st.floats(0.1, 5),
    training_points=st.integers(2, 60),
    test_points=st.integers(2, 60),
)


@settings(max_examples=40, deadline=None)
@given(CONSTANTS, st.integers(0, 100), st.sampled_from(["train", "validation", "test"]))
def test_clean_points_lie_on_the_line_and_on_the_spiral_arm_of_their_label(constants, seed, split):
    points = sample(constants, seed, split)
    size = np.abs(points.z)
    assert np.all((size >= constants.inner) & (size <= constants.outer))
    assert np.array_equal(np.sign(points.z), np.repeat(points.y[:, None], 2, axis=1))
    np.testing.assert_allclose(points.x[:, :2], constants.easy_scale * points.z[:, [0, 0]], rtol=1e-6)
    radius = np.linalg.norm(points.x[:, 2:], axis=1)
    np.testing.assert_allclose(radius, constants.hard_scale * size[:, 1], rtol=1e-5)
    turned = np.radians(constants.complexity) * size[:, 1] / constants.outer
    arm = points.y * (points.x[:, 2] * np.cos(turned) + points.x[:, 3] * np.sin(turned))  # rotate back onto the axis
    np.testing.assert_allclose(arm, radius, rtol=1e-4, atol=1e-6)


def test_easy_latent_has_an_interval_of_its_own():
    common, own = sample(ToyConstants(), 0), sample(ToyConstants(easy_interval=(0.5, 1.3)), 0)
    assert np.array_equal(common.x[:, 2:], own.x[:, 2:])
    np.testing.assert_allclose((np.abs(own.z[:, 0]) - 0.5) / 0.8, (np.abs(common.z[:, 0]) - 0.1) / 0.9, atol=1e-12)
    np.testing.assert_allclose(own.x[:, :2], own.z[:, [0, 0]], rtol=1e-6)


def test_constant_pitch_turns_alike_however_far_out_the_spiral_goes():
    for complexity in (200, 600):
        points = sample(ToyConstants(complexity, inner=0.0, outer=complexity / 400, easy_interval=(0.1, 1.0)), 0)
        angle = np.unwrap(
            np.arctan2(*(points.y * points.x[:, 3], points.y * points.x[:, 2]))[
                order := np.argsort(np.abs(points.z[:, 1]))
            ]
        )
        np.testing.assert_allclose(angle, np.radians(400) * np.abs(points.z[order, 1]), atol=1e-4)


def test_labels_are_balanced_and_features_independent_given_the_label():
    points = sample(ToyConstants(test_points=20_000), seed=0, split="test")
    assert points.y.sum() == 0
    for label in (-1, 1):
        easy, hard = np.abs(points.z[points.y == label]).T
        assert abs(np.corrcoef(easy, hard)[0, 1]) < 0.03


def test_same_seed_same_data_and_other_seed_or_split_other_data():
    constants = ToyConstants()
    first = sample(constants, 3)
    assert np.array_equal(first.x, sample(constants, 3).x)
    assert not np.array_equal(first.x, sample(constants, 4).x)
    assert not np.array_equal(first.x[:300], sample(constants, 3, "test").x[:300])


@pytest.mark.parametrize("noise", ["gaussian_noise", "label_noise", "dropout", "uniform_noise"])
def test_noise_leaves_every_other_draw_as_it_was(noise):
    clean, noisy = sample(ToyConstants(), 0), sample(ToyConstants(**{noise: 0.3}), 0)
    assert np.array_equal(clean.y, noisy.y)
    assert np.array_equal(np.abs(clean.z), np.abs(noisy.z))
    assert not np.array_equal(clean.x, noisy.x)


def test_label_noise_flips_each_feature_by_itself_at_its_rate():
    points = sample(ToyConstants(label_noise=0.1, training_points=20_000), 0)
    flipped = np.sign(points.z) != points.y[:, None]
    np.testing.assert_allclose(flipped.mean(axis=0), 0.1, atol=0.01)
    assert abs((flipped[:, 0] & flipped[:, 1]).mean() - 0.01) < 0.005


def test_gaussian_noise_has_its_standard_deviation_and_dropout_gives_exact_zeros():
    clean = sample(ToyConstants(training_points=20_000), 0)
    noisy = sample(ToyConstants(gaussian_noise=0.5, training_points=20_000), 0)
    np.testing.assert_allclose((noisy.x - clean.x).std(axis=0), 0.5, atol=0.02)
    dropped = sample(ToyConstants(gaussian_noise=0.5, dropout=0.4, training_points=20_000), 0)
    for feature in (slice(0, 2), slice(2, 4)):
        np.testing.assert_allclose((dropped.x[:, feature] == 0).all(axis=1).mean(), 0.4, atol=0.02)


def test_noise_on_the_hard_feature_leaves_the_easy_one_clean_and_all_noise_validation_and_test_points():
    noise = {"gaussian_noise": 1, "label_noise": 0.1, "dropout": 0.4}
    clean, noisy = sample(ToyConstants(), 0), sample(ToyConstants(**noise, noisy="hard"), 0)
    assert np.array_equal(clean.x[:, :2], noisy.x[:, :2]) and not np.array_equal(clean.x[:, 2:], noisy.x[:, 2:])
    for split in ("validation", "test"):
        assert np.array_equal(sample(ToyConstants(), 0, split).x, sample(ToyConstants(**noise), 0, split).x)


BAD = [
    ("complexity", -1),
    ("inner", 2),
    ("label_noise", 1.5),
    ("dropout", float("nan")),
    ("noisy", "easy"),
    ("outer", 0),
]
BAD += [("training_points", 0), *(("easy_interval", wrong) for wrong in ((1.0, 1.0), (-0.1, 1.0), (1.0,)))]


def test_a_bad_value_is_named_in_one_line(refuses):
    for name, value in BAD:
        refuses(ValueError, ToyConstants, **{name: value}, match=name, words=[value])
    refuses(ValueError, sample, ToyConstants(), 0, "dev", match="split")
    refuses(ValueError, sample, ToyConstants(), -1, match="seed")
