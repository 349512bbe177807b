"""The toy trained with SAM's variants: a stack's nets take the steps of `lib.optim`, and the re-weightings
weigh as they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lib import check
from lib.data.toy import ToyConstants, sample
from lib.optim import ESAM, VARIANTS, WITHOUT_RADIUS
from lib.optim.variants import CONSTANTS
from lib.toy import reweighting, rules, variants
from lib.toy.ensemble import sgd, train
from lib.toy.nets import Model
from lib.toy.nets import points as points_of
from lib.toy.reweighting import BINS, GroupDRO, balanced, group, upsampled
from lib.toy.stack import errors, evaluate, initial, module, unit
from lib.toy.variants import METHODS, StackEngine, VariantSetting, trained

SMALL = ToyConstants(training_points=60, test_points=100)
RATES = {"adam": 0.003, "sam_adam": 0.003}
SHORT = {"data": SMALL, "epochs": 3, "width": 16}
START = {"gain": 1.5, "bias": 0.5, "head": (2.0, 0.5)}


def setting(method: str, **others) -> VariantSetting:
    """A short training of `method`."""
    defaults = {
        "rho": 0.0 if method in rules.WITHOUT_RADIUS else 0.2,
        "learning_rate": RATES.get(method, 0.05),
        **SHORT,
    }
    return VariantSetting(method, **(defaults | others))


@pytest.mark.parametrize("method", [name for name in VARIANTS if name in rules.RULES])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_stack_takes_the_steps_of_the_optimizers_of_lib_optim(method, decay, monkeypatch) -> None:
    """Each method without its rule is trained by its optimizer, one net after another."""
    # ESAM's masks are drawn in another order there: all weights are perturbed, half of the batch selected.
    monkeypatch.setattr(rules, "C", replace(CONSTANTS, esam_beta=1.0))
    monkeypatch.setitem(ESAM.own, "beta", (1.0, check.number))
    usual, other = setting(method, weight_decay=decay), setting(method, weight_decay=decay, head=(2, 1))
    models = [Model(usual, 3), Model(other, 4), Model(replace(usual, rho=usual.rho / 2), 3)]
    ours = StackEngine().run(models, (0, 0.5, 1), 60, True)
    monkeypatch.delitem(rules.RULES, method)
    alone = StackEngine().run(models, (0, 0.5, 1), 60, True)
    exact = method not in ("gsam", "looksam", "friendly")  # which divide by what may be small
    np.testing.assert_allclose(alone.nets, ours.nets, rtol=0, atol=1e-5 if exact else 1e-4)
    np.testing.assert_allclose(alone.heads, ours.heads, atol=1e-5 if exact else 1e-4)
    np.testing.assert_allclose(alone.errors, ours.errors, atol=0.011)
    assert np.linalg.norm(alone.nets[:, 2] - alone.nets[:, 0], axis=-1).min() > 0.01
    if method == "lsam":  # its one pass is taken at the phantom of the head alone, which no forward pass shows
        assert np.isnan(alone.traces).any() and np.isfinite(ours.traces).all()
    elif method not in WITHOUT_RADIUS:
        np.testing.assert_allclose(alone.traces, ours.traces, atol=1e-5)


def test_method_that_only_the_table_of_optimizers_has_is_trained_in_the_toy(monkeypatch) -> None:
    monkeypatch.delitem(rules.RULES, "asam")
    assert variants.RULES is rules.RULES and "asam" in METHODS
    result = train([setting("asam")], range(2))
    monkeypatch.undo()
    np.testing.assert_allclose(result.heads, train([setting("asam")], range(2)).heads, atol=1e-5)


@pytest.mark.parametrize("method", ["sam", "esam", "group_dro"])
def test_result_does_not_depend_on_what_else_is_trained(method) -> None:
    radius = {"step_size": 0.5} if method == "group_dro" else {"rho": 0.5}
    chosen = [setting(method), setting(method, **radius), setting("lsam")]
    together, alone = (train(some, seeds, trace_every=6) for some, seeds in ((chosen, range(3)), (chosen[1:2], [1])))
    np.testing.assert_array_equal(together.heads[1, 1], alone.heads[0, 0])
    np.testing.assert_array_equal(together.errors[1, 1], alone.errors[0, 0])
    np.testing.assert_array_equal(together.traces[1][1], alone.traces[0][0])


@pytest.mark.parametrize("method", [m for m in METHODS if m not in (*rules.WITHOUT_RADIUS, "sam_adam")])
def test_rho_zero_is_sgd(method) -> None:
    plain = train([setting("sgd")], range(2))
    ours = train([setting(method, rho=0.0)], range(2))
    if method == "esam":  # its selection of examples is left: the definition has no rho there
        assert not np.array_equal(ours.heads, plain.heads)
    else:
        np.testing.assert_allclose(ours.heads, plain.heads, rtol=1e-4)


def test_gradient_is_that_of_the_weighted_loss() -> None:
    torch.manual_seed(0)
    theta = initial([Model(setting("sgd"), 5)])
    net = module(theta.clone()[0])
    x, y, weights = torch.randn(1, 7, 4), torch.randn(1, 7).sign(), torch.rand(1, 7)
    losses, gradient = evaluate(theta, x, y, weights)
    expected = torch.nn.functional.softplus(-y[0] * net(x[0]))
    torch.testing.assert_close(losses[0], expected.detach())
    (weights[0] * expected).mean().backward()
    size = sum(p.grad.square().sum() for p in net.parameters()).sqrt()
    torch.testing.assert_close(gradient.norm(), size)
    assert evaluate(theta, x, y, gradient=False)[1] is None


def test_gradient_of_a_point_that_fits_well_is_not_lost_before_float32_ends() -> None:
    theta = initial([Model(setting("sgd"), 5)])
    net = module(theta.clone()[0])
    x = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    with torch.no_grad():
        logit = net(x[0]).item()
        scale = 95 / abs(logit)
        net.head.weight.mul_(scale)
    theta[..., -1] *= scale
    y = torch.tensor([[1.0 if logit > 0 else -1.0]])
    torch.nn.functional.softplus(-y[0] * net(x[0])).sum().backward()
    _, gradient = evaluate(theta, x, y)
    expected = net.head.weight.grad[0]
    assert 0 < expected.abs().max() < 1e-38
    torch.testing.assert_close(gradient[0, :, -1], expected, rtol=0.01, atol=2e-44)


def test_unit_vectors_are_long_as_asked_net_by_net_and_zero_where_zero() -> None:
    torch.manual_seed(0)
    vector = torch.randn(4, 2, 9) * torch.tensor([1.0, 1e-25, 1e-40, 0.0])[:, None, None]
    length = torch.tensor([0.5, 2.0, 3.0, 1.0])[:, None, None]
    sizes = unit(vector, length).flatten(1).double().norm(dim=1)
    torch.testing.assert_close(sizes, torch.tensor([0.5, 2.0, 3.0, 0.0]).double(), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("method, share", [("lsam", 1.0), ("sam", None)])
def test_ascents_are_followed(method, share) -> None:
    settings = [setting(method, rho=0.3), setting(method, rho=0.0), setting("sgd")]
    moved, still, none = train(settings, range(2), trace_every=5).traces
    assert moved.shape == (2, 8, 6) and np.isnan(still).all() and np.isnan(none).all()
    w, phantom, on_head, length = moved[..., :2], moved[..., 2:4], moved[..., 4], moved[..., 5]
    np.testing.assert_allclose(np.linalg.norm(phantom - w, axis=-1), length, rtol=1e-4)
    if share:
        np.testing.assert_allclose(on_head, share)
        np.testing.assert_allclose(length, 0.3, rtol=1e-5)
    else:
        np.testing.assert_allclose(length**2 / on_head, 0.3**2, rtol=1e-4)


def test_esam_perturbs_its_share_of_the_weights_and_descends_on_half_of_the_batch(monkeypatch) -> None:
    models, seen = [Model(setting("esam", rho=0.5), seed) for seed in range(2)], []
    theta = initial(models)

    def evaluate(point: Tensor, x: Tensor, y: Tensor, weights=None, gradient: bool = True) -> tuple[Tensor, Tensor]:
        seen.append((point, weights))
        return torch.arange(5.0).repeat(2, 1) * (len(seen) > 1), torch.ones_like(theta)

    monkeypatch.setattr(rules, "evaluate", evaluate)
    rules.Variant(models, torch.zeros(2, 60, 5))(0, theta, torch.arange(5).repeat(2, 1))
    _, (phantom, _), (_, weights) = seen
    moved = (phantom - theta) != 0
    assert moved.float().mean().item() == pytest.approx(CONSTANTS.esam_beta, abs=0.05)
    length = 0.5 / CONSTANTS.esam_beta / theta[0].numel() ** 0.5
    torch.testing.assert_close((phantom - theta)[moved], torch.full((int(moved.sum()),), length), rtol=1e-3, atol=1e-6)
    assert weights[0].tolist() == pytest.approx([0, 0, 5 / 3, 5 / 3, 5 / 3])  # of 5, half and rounded up


# Re-weighting


def test_jtt_draws_the_first_models_mistakes_as_often_as_asked() -> None:
    wrong = [np.arange(10) < 2, np.zeros(10, dtype=bool)]
    rows = upsampled(wrong, [5, 5], [0, 1], length=180)
    counts = np.stack([np.bincount(row, minlength=10) for row in rows])
    assert counts[0].tolist() == [50] * 2 + [10] * 8  # ten passes through 2 * 5 + 8 points
    assert (counts[1] == 18).all()


def test_jtt_draws_the_mistakes_of_the_first_steps_of_sgd(monkeypatch) -> None:
    models, given = [Model(setting("jtt", identification=2, upweight=5), 0)], []
    monkeypatch.setattr(reweighting, "upsampled", lambda *arguments: given.append(arguments) or upsampled(*arguments))
    trained(models)
    (error,) = errors(trained([Model(setting("sgd", epochs=1), 0)]), points_of(models)[0])
    ((wrong,), *others) = given[0]
    assert others == [[5], [0], 180] and error[2] < wrong.mean() < 1  # two steps fit less than an epoch


def test_groups_are_labels_and_quarters_of_the_latents_size() -> None:
    points = sample(ToyConstants(training_points=80), 0)
    for column, feature in enumerate(("easy", "hard")):
        found = group(points, feature)
        assert set(found) == set(range(2 * BINS))
        assert ((found >= BINS) == (points.y > 0)).all()
        size = np.abs(points.z[:, column])
        for low in range(BINS - 1):
            assert size[found % BINS == low].max() < size[found % BINS == low + 1].min()


def test_groups_by_conflict_are_those_on_which_the_easy_feature_is_wrong() -> None:
    points = sample(ToyConstants(label_noise=0.2), 0)
    found = group(points, "conflict")
    wrong = points.y * points.x[:, 0] < 0
    assert wrong.any() and (found % 2 == wrong).all() and ((found >= 2) == (points.y > 0)).all()
    assert GroupDRO([points], "conflict", [0.1]).log_q.shape == (1, 4)


def test_group_dro_weights_are_those_of_the_definition() -> None:
    points = [sample(SMALL, seed) for seed in range(2)]
    dro = GroupDRO(points, "easy", [0.5, 2.0])
    generator = np.random.default_rng(0)
    q = np.full((2, 2 * BINS), 1 / (2 * BINS))
    for _ in range(4):
        chosen, losses = generator.integers(60, size=(2, 5)), generator.uniform(0, 3, size=(2, 5))
        weights = dro.weights(torch.tensor(losses), torch.tensor(chosen)).numpy()
        for net, step_size in enumerate((0.5, 2.0)):
            member = group(points[net], "easy")[chosen[net]]
            means = np.array([losses[net][member == g].mean() if (member == g).any() else 0.0 for g in range(2 * BINS)])
            q[net] *= np.exp(step_size * means)
            q[net] /= q[net].sum()
            assert (weights[net] * losses[net]).mean() == pytest.approx((q[net] * means).sum(), rel=1e-5)
    assert q.max() > 0.3  # the step sizes have told


def test_group_dro_draws_groups_alike_however_small() -> None:
    of_points = [np.array([0] * 57 + [3] * 3), np.arange(60) % 4]
    rows = balanced(of_points, [0, 0], 6000)
    for points, row in zip(of_points, rows):
        numbers, counts = np.unique(points[row], return_counts=True)
        assert set(numbers) == set(points)
        np.testing.assert_allclose(counts / 6000, 1 / len(numbers), atol=0.03)
        each = np.bincount(row, minlength=60)
        assert each.min() > 0
    assert np.array_equal(rows, balanced(of_points, [0, 0], 6000))


# Bad arguments


REFUSED = [
    *({"method": "adagrad"}, {"rho": -1.0}, {"rho": float("nan")}, {"method": "sgd", "rho": 0.1}),
    *({"method": "jtt", "rho": 0.1}, {"upweight": 0}, {"identification": -1}, {"learning_rate": True}),
    *({"groups": "both"}, {"batch_size": 7}, {"step_size": -0.1}, {"weight_decay": -0.1}, {"bias": None}),
]


@pytest.mark.parametrize("arguments", REFUSED)
def test_bad_setting_is_one_line_that_names_it(arguments, refuses) -> None:
    refuses(ValueError, VariantSetting, **({"method": "sam"} | arguments), match=f"^{[*arguments][-1]} must ")


def test_bad_ensemble_is_refused(refuses) -> None:
    refuses(ValueError, train, [setting("sgd"), sgd()], [0], match="^settings must")
    refuses(ValueError, train, [setting("sgd")], [0], engine="torch", match="^engine must")
    refuses(ValueError, train, [setting("sgd")], [0], device="cuda", match="^engine must")
