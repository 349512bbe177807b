"""The surface of chapter 01_sam: formulas agree with autograd, walks with what the optimizers promise."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from book import figures_sam as sam
from book.sam_surface import METHODS, SurfaceConstants, gradient, loss, sample, sharpness, valley, walk, walks

CONSTANTS = SurfaceConstants()


def autograd_loss(weights: torch.Tensor) -> torch.Tensor:
    x, y = sample(CONSTANTS)
    return F.softplus(-y * weights[0] * weights[1] * x).double().mean()


@pytest.mark.parametrize("weights", [(3.0, 0.3), (1.2, 2.0), (-0.5, 1.0)])
def test_loss_gradient_and_sharpness_are_autograds(weights: tuple[float, float]) -> None:
    here, at = np.array(weights), torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    value = autograd_loss(at)
    slope = torch.autograd.grad(value, at)[0].numpy()
    hessian = torch.autograd.functional.hessian(autograd_loss, at.detach())
    assert loss(*here, CONSTANTS) == pytest.approx(value.item(), rel=1e-6)
    assert gradient(here, CONSTANTS) == pytest.approx(slope, rel=1e-5)
    assert sharpness(here, CONSTANTS) == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-5)


def test_loss_is_least_in_the_valley_and_flattest_where_it_is_balanced() -> None:
    best = valley(CONSTANTS)
    assert np.abs(gradient(np.array([best, 1.0]), CONSTANTS)).max() < 1e-9
    along = np.linspace(0.5, 4, 50)
    sharpest = sharpness(np.stack([along, best / along], axis=-1), CONSTANTS)
    assert sharpness(np.full(2, best**0.5), CONSTANTS) <= sharpest.min() + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_phantoms_lie_at_rho_along_what_the_method_perturbs(method: str) -> None:
    offsets = walk(method, 0.4, 20, 0).phantoms - walk(method, 0.4, 20, 0).weights[:-1]
    assert np.linalg.norm(offsets, axis=1) == pytest.approx(0.0 if method == "SGD" else 0.4, rel=1e-5)
    assert (offsets[:, 0] == 0).all() == (method != "SAM")


def test_methods_without_radius_are_one() -> None:
    runs = [walk(method, 0.0, 20, 3).weights for method in METHODS]
    assert all(np.array_equal(run, runs[0]) for run in runs)


def test_walks_are_those_of_their_seeds() -> None:
    runs = walks("SAM", 0.3, 5, 3)
    assert runs.shape == (3, 6, 2)
    assert np.array_equal(runs[2], walk("SAM", 0.3, 5, 2).weights) and not np.array_equal(runs[0], runs[1])


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_figures_have_a_panel_for_each_method_whatever_the_radius(rho: float) -> None:
    runs = {method: walk(method, rho, 3, 0) for method in METHODS}
    for fig in (sam.anatomy((2.4, 1.25), rho), sam.trajectories(runs)):
        assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes] == list(METHODS)
        plt.close(fig)
    fig = sam.drift({method: run.weights[None] for method, run in runs.items()})
    assert len(fig.axes[0].get_legend().get_texts()) == len(METHODS)
    plt.close(fig)


def test_unknown_method_is_one_line() -> None:
    with pytest.raises(ValueError, match="^method must be one of SGD, SAM, LSAM, not 'sam'$"):
        walk("sam", 0.1, 1, 0)
