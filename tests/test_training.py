from __future__ import annotations

import math

import pytest
import torch

from lib import training
from lib.checkpoint import Checkpoint
from lib.data.dataset import Split
from lib.data.transforms import draw_crops, normalise
from lib.models import ConvNet
from lib.optim import WITHOUT_RADIUS
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


def trained(method: str, rho: float = 0.0, *, seed: int = 0, lr: float = 0.05, epochs: int = 2, **more):
    model = training.initial_model(small_net, seed=seed, device=CPU)
    optimizer = training.make_optimizer(method, model, rho, lr=lr, momentum=0.9, weight_decay=1e-4)
    sets, settings = (images(50, seed=1), images(20, seed=2)), {"epochs": epochs, "batch_size": 8, "seed": seed, **more}
    history = training.train(model, optimizer, *sets, **settings)
    return model, history


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_training_learns_and_depends_on_its_seed():
    model, history = trained("sam", 0.05, epochs=8)
    assert history.validation_error[-1] == 0 and history.train_loss[-1] < 0.5 * history.train_loss[0]
    assert [len(values) for values in history.curve.values()] == [8, 8, 8] and history.diverged_at is None
    assert not same_weights(model, trained("sam", 0.05, epochs=8, seed=1)[0])


def test_methods_share_initial_weights_and_batches_and_the_rate_falls_as_a_cosine(monkeypatch):
    steps: list[tuple] = []

    def look(model, optimizer, inputs, labels):
        steps.append((model.head.weight.clone(), inputs, labels, torch.tensor(optimizer.param_groups[0]["lr"])))
        return torch.zeros(())

    monkeypatch.setattr(training, "take_step", look)
    for method in training.METHODS:
        trained(method, 0.0 if method == "sgd" else 0.1, lr=0.1)
    assert len(steps) == len(training.METHODS) * 14, "two epochs of seven batches"
    for step, first in zip(steps, len(training.METHODS) * steps[:14]):
        assert all(torch.equal(a, b) for a, b in zip(step, first))
    rates = [float(rate) for *_, rate in steps[:14]]
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 14)) for step in range(14)])


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_random_state():
    state = torch.get_rng_state()
    first, again, other = (training.initial_model(small_net, seed=seed, device=CPU) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(first, again) and not same_weights(first, other)


def test_every_epoch_visits_each_example_once_in_an_order_of_its_own():
    epochs = [torch.cat(training.batch_order(3, epoch, 23, 5)) for epoch in range(2)]
    assert all(torch.equal(order.sort().values, torch.arange(23)) for order in epochs)
    assert not torch.equal(*epochs)
    assert [len(batch) for batch in training.batch_order(3, 0, 23, 5)] == [5, 5, 5, 5, 3]


def test_batch_is_the_image_less_the_mean_pixel_in_channels_last():
    pixels = torch.randint(256, (4, 3, 16, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean = torch.tensor([0.1, 0.2, 0.3])
    inputs, labels = Images.of(Split(pixels, torch.arange(4), {}), mean, CPU).batch(torch.tensor([2, 0]))
    torch.testing.assert_close(inputs, pixels[[2, 0]] / 255 - mean[:, None, None])
    assert inputs.is_contiguous(memory_format=torch.channels_last) and labels.tolist() == [2, 0]


def natural(count: int = 10, seed: int = 0) -> Images:
    """Images that are normalised as ImageNet's, and cropped in training."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=random, dtype=torch.uint8)
    return Images.of(Split(pixels, torch.arange(count) % 2, {}), None, CPU)


def test_training_sees_the_crops_of_its_seed_and_epoch_and_evaluation_none(monkeypatch):
    asked, seen, at_epoch, batch = [], [], Images.at_epoch, Images.batch
    monkeypatch.setattr(Images, "at_epoch", lambda *given: asked.append(given[1:]) or at_epoch(*given))
    monkeypatch.setattr(Images, "batch", lambda self, which: seen.append(self.crops is not None) or batch(self, which))
    model = training.initial_model(ConvNet, 2, 3, 32, 32, seed=0, device=CPU)
    optimizer = training.make_optimizer("sgd", model, 0.0, lr=0.01)
    training.train(model, optimizer, natural(), natural(seed=1), epochs=2, batch_size=5, seed=4)
    assert asked == [(4, 0), (4, 1)] and seen == 2 * [True, True, False]
    images, which = natural(), torch.tensor([7, 2, 4])
    plain, labels = images.batch(which)  # normalised as ImageNet's
    assert torch.equal(plain, normalise(images.pixels.permute(0, 3, 1, 2)[which])) and labels.tolist() == [1, 0, 0]
    first = images.at_epoch(3, 2)
    assert torch.equal(first.crops, draw_crops(10, 32, 3, 2)) and images.crops is None, "the images stay plain"
    assert torch.equal(first.batch(which)[0][1:2], first.batch(torch.tensor([2]))[0]), "not on the batch"


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


@pytest.mark.parametrize("step, epochs", [(2, 0), (13, 1)])
def test_divergence_at_an_inner_step_and_at_the_last_update_is_noticed(step, epochs, monkeypatch):
    steps = iter(range(14))

    def spoil(model, *_):
        if (now := next(steps)) == 13 == step:
            torch.nn.init.constant_(model.head.bias, math.nan)
        return torch.tensor(math.nan if now == 2 == step else 0.0)

    monkeypatch.setattr(training, "take_step", spoil)
    _, history = trained("sgd")
    assert history.diverged_at == step and len(history.train_loss) == len(history.validation_loss) == epochs


@pytest.mark.parametrize("method", training.METHODS)
def test_training_in_two_parts_is_the_whole_one_bit_for_bit(method, tmp_path):
    rho = 0.0 if method in WITHOUT_RADIUS else 0.1
    (whole, history), path = trained(method, rho, epochs=4), tmp_path / "net.pt"
    part, so_far = trained(method, rho, epochs=4, until=2, checkpoint=Checkpoint(path))
    assert so_far.train_loss == history.train_loss[:2] and not same_weights(part, whole)
    model, later = trained(method, rho, epochs=4, checkpoint=Checkpoint(path))
    assert same_weights(model, whole) and later.curve == history.curve
    kept = path.read_bytes()
    assert torch.load(path)["optimizer"] is None, "a finished net's"
    assert same_weights(trained(method, rho, epochs=4, checkpoint=Checkpoint(path))[0], whole)
    again, _ = trained(method, rho, epochs=4, until=2, checkpoint=Checkpoint(path))
    assert same_weights(again, part) and path.read_bytes() == kept, (
        "a file of more epochs stays, and is not gone on from"
    )


@pytest.mark.parametrize("method", [method for method in training.METHODS if method not in WITHOUT_RADIUS])
def test_the_ascent_holds_in_its_epochs_only_and_is_the_base_optimizer_elsewhere(method, tmp_path):
    whole, never = trained(method, 0.1, epochs=3)[0], trained(method, 0.0, epochs=3)[0]
    assert same_weights(trained(method, 0.1, epochs=3, ascent=range(0, 3))[0], whole)
    assert same_weights(trained(method, 0.1, epochs=3, ascent=range(0))[0], never)
    early, late = (trained(method, 0.1, epochs=3, ascent=ascent)[0] for ascent in (range(0, 1), range(1, 3)))
    assert not any(same_weights(*two) for two in ((early, whole), (early, never), (late, whole), (early, late)))
    after_one = {"epochs": 3, "until": 1}
    assert same_weights(trained(method, 0.1, **after_one, ascent=range(0, 1))[0], trained(method, 0.1, **after_one)[0])
    assert same_weights(trained(method, 0.1, **after_one, ascent=range(1, 3))[0], trained(method, 0.0, **after_one)[0])
    checkpoint = tmp_path / "net.pt"  # stopped where the ascent begins, and gone on with
    trained(method, 0.1, **after_one, ascent=range(1, 3), checkpoint=Checkpoint(checkpoint))
    assert same_weights(trained(method, 0.1, epochs=3, ascent=range(1, 3), checkpoint=Checkpoint(checkpoint))[0], late)


@pytest.mark.parametrize("until", [-1, 3, 1.0])
def test_end_that_is_none_of_the_epochs_is_refused(until):
    with pytest.raises(ValueError, match=f"until must be a whole number of at least 0 and at most 2, not {until}"):
        trained("sgd", epochs=2, until=until)


def test_net_of_an_epoch_before_the_divergence_is_had_from_a_training_that_diverged(tmp_path, monkeypatch):
    take_step, count, path = training.take_step, iter(range(100)), tmp_path / "net.pt"

    def spoil_the_second_epoch(model, *given):
        loss = take_step(model, *given)
        return loss * math.nan if next(count) == 8 else loss

    with monkeypatch.context() as patch:
        patch.setattr(training, "take_step", spoil_the_second_epoch)
        _, history = trained("sgd", epochs=3, checkpoint=Checkpoint(path))
    assert history.diverged_at == 8 and len(history.train_loss) == 1
    assert trained("sgd", epochs=3, until=1, checkpoint=Checkpoint(path))[1].diverged_at is None
    assert trained("sgd", epochs=3, until=2, checkpoint=Checkpoint(path))[1].diverged_at == 8, "known"


def test_unknown_method_is_refused_and_no_progress_bar_is_shown_outside_a_terminal(capfd):
    with pytest.raises(ValueError, match="method must be one of sgd, sam, lsam, .*, not 'muon'"):
        training.make_optimizer("muon", small_net(), 0.0, lr=0.1)
    trained("sgd")
    assert capfd.readouterr() == ("", "")
