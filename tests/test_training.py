from __future__ import annotations

import math

import pytest
import torch

from lib import training
from lib.data.dataset import Split
from lib.models import ConvNet
from lib.training import Images

CPU = torch.device("cpu")
SIZE = dict(in_channels=3, height=16, width=8)


def small_net(classes: int = 2) -> ConvNet:
    return ConvNet(classes, **SIZE)


def images(count: int, seed: int) -> Images:
    """Images whose brightness tells their label."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=random)
    pixels = torch.randint(100, (count, 3, 16, 8), generator=random) + 100 * labels[:, None, None, None]
    return Images.of(Split(pixels.to(torch.uint8), labels, {}), torch.tensor([0.4, 0.4, 0.4]), CPU)


def trained(method: str, rho: float = 0.0, *, seed: int = 0, lr: float = 0.05, epochs: int = 2):
    model = training.initial_model(small_net, seed=seed, device=CPU)
    optimizer = training.make_optimizer(method, model, rho, lr=lr, momentum=0.9, weight_decay=1e-4)
    history = training.train(
        model, optimizer, images(50, seed=1), images(20, seed=2), epochs=epochs, batch_size=8, seed=seed
    )
    return model, history


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("method", training.METHODS)
def test_same_seed_gives_the_same_net_bit_for_bit(method):
    rho = 0.0 if method == "sgd" else 0.1
    (first, history), (second, again) = trained(method, rho), trained(method, rho)
    assert same_weights(first, second)
    assert history.train_loss == again.train_loss and history.validation_loss == again.validation_loss
    assert not same_weights(first, trained(method, rho, seed=1)[0])


@pytest.mark.parametrize("method", training.METHODS)
def test_training_learns(method):
    _, history = trained(method, 0.0 if method == "sgd" else 0.05, epochs=8)
    assert history.validation_error[-1] == 0 and history.train_loss[-1] < 0.5 * history.train_loss[0]
    assert len(history.train_loss) == len(history.validation_loss) == len(history.validation_error) == 8
    assert history.diverged_at is None


@pytest.mark.parametrize("method", ["sam", "lsam"])
def test_rho_zero_is_sgd_bit_for_bit(method):
    (plain, history), (model, same) = trained("sgd"), trained(method, 0.0)
    assert same_weights(plain, model) and history.train_loss == same.train_loss
    assert not same_weights(plain, trained(method, 0.1)[0])


def test_methods_share_initial_weights_and_batches(monkeypatch):
    steps: list[tuple] = []

    def look(model, optimizer, inputs, labels):
        steps.append((model.head.weight.clone(), inputs, labels))
        return torch.zeros(())

    monkeypatch.setattr(training, "take_step", look)
    for method in training.METHODS:
        trained(method, 0.0 if method == "sgd" else 0.1)
    count = 2 * math.ceil(50 / 8)
    assert len(steps) == len(training.METHODS) * count
    for step, first in zip(steps, len(training.METHODS) * steps[:count]):
        assert all(torch.equal(a, b) for a, b in zip(step, first))


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_random_state():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = training.initial_model(small_net, seed=0, device=CPU)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert same_weights(first, training.initial_model(small_net, seed=0, device=CPU))
    assert not same_weights(first, training.initial_model(small_net, seed=1, device=CPU))


def test_every_epoch_visits_each_example_once_in_an_order_of_its_own():
    epochs = [torch.cat(training.batch_order(3, epoch, 23, 5)) for epoch in range(2)]
    assert all(torch.equal(order.sort().values, torch.arange(23)) for order in epochs)
    assert not torch.equal(*epochs)
    assert [len(batch) for batch in training.batch_order(3, 0, 23, 5)] == [5, 5, 5, 5, 3]


def test_learning_rate_falls_as_a_cosine_from_step_to_step(monkeypatch):
    rates = []
    monkeypatch.setattr(
        training,
        "take_step",
        lambda model, optimizer, inputs, labels: rates.append(optimizer.param_groups[0]["lr"]) or torch.zeros(()),
    )
    trained("sgd", lr=0.1)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 14)) for step in range(14)])


def test_batch_is_the_image_less_the_mean_pixel_in_channels_last():
    pixels = torch.randint(256, (4, 3, 16, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean = torch.tensor([0.1, 0.2, 0.3])
    inputs, labels = Images.of(Split(pixels, torch.arange(4), {}), mean, CPU).batch(torch.tensor([2, 0]))
    torch.testing.assert_close(inputs, pixels[[2, 0]] / 255 - mean[:, None, None])
    assert inputs.is_contiguous(memory_format=torch.channels_last) and labels.tolist() == [2, 0]


def test_evaluation_counts_wrong_answers_and_leaves_the_net_alone():
    model, _ = trained("sgd")
    before, data = [p.clone() for p in model.parameters()], images(1203, seed=5)
    loss, error = training.evaluate(model, data)
    inputs, labels = data.batch(slice(None))
    with torch.no_grad():
        output = model(inputs)
        phi = model.features(inputs)
    assert error == pytest.approx(float((output.argmax(1) != labels).float().mean()))
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(output, labels)), rel=1e-5)
    torch.testing.assert_close(torch.from_numpy(training.features(model, data)), phi)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_divergence_is_recorded_with_its_step_and_no_number():
    _, history = trained("sgd", lr=1e30)
    assert history.diverged_at in (1, 2)
    assert history.train_loss == history.validation_loss == history.validation_error == []


def test_divergence_at_the_last_update_is_noticed(monkeypatch):
    steps = iter(range(14))

    def spoil_the_last(model, *_):
        if next(steps) == 13:
            torch.nn.init.constant_(model.head.bias, math.nan)
        return torch.zeros(())

    monkeypatch.setattr(training, "take_step", spoil_the_last)
    _, history = trained("sgd")
    assert history.diverged_at == 13 and len(history.train_loss) == len(history.validation_loss) == 1


def test_unknown_method_is_refused_in_one_line():
    methods = "sgd, sam, lsam, asam, gsam, esam, looksam, friendly, sam_decay_inside, adam, sam_adam"
    with pytest.raises(ValueError, match=f"method must be one of {methods}, not 'muon'"):
        training.make_optimizer("muon", small_net(), 0.0, lr=0.1)


def test_no_progress_bar_outside_a_terminal(capfd):
    trained("sgd")
    assert capfd.readouterr() == ("", "")
