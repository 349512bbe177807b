"""SGD, SAM and LSAM side by side (chapter 01): walks on a surface, what holds in every step, what a step costs."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.optimize import brentq
from scipy.stats import bootstrap
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap
from torch.nn import functional as F
from torch.optim import Optimizer

from book import style
from lib import check
from lib.device import threads as torch_threads
from lib.models import ConvNet, FeatureNet, SingleLogit
from lib.optim.variants import VARIANTS, WITHOUT_RADIUS, take_step

METHODS = ("SGD", "SAM", "LSAM")


# A loss surface one can see.


class Net(FeatureNet):
    """Any `body`, whose output are the features, and any last layer."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


def product_net(theta: float, w: float) -> Net:
    """logit(x) = w theta x of x, shape (n, 1): theta x is the feature phi, and w the last layer."""
    net = Net(nn.Linear(1, 1, bias=False), SingleLogit(1))
    for p, value in zip(net.parameters(), (theta, w)):
        nn.init.constant_(p, value)
    return net


@dataclass(frozen=True)
class Surface:
    """The logistic loss of `product_net`, Example 2 of Appendix D in one dimension; all of it chosen here. It depends
    on the product w theta only: its minima form the hyperbola w theta = `valley`, along which the sharpness varies.
    Points of the surface, `weights`, are (theta, w), shape (..., 2)."""

    points: int = 200  # x ~ N(y, 1), y = -1 or +1: the classes overlap, so the loss has a finite minimum
    batch_size: int = 20
    learning_rate: float = 0.2
    start: tuple[float, float] = (3.0, 0.3)  # (theta, w): a large feature and a small last layer
    data_seed: int = 0

    @cached_property
    def sample(self) -> tuple[Tensor, Tensor]:
        """(x, y), each of shape (points,); the labels y are -1 or +1, half each."""
        draw = torch.Generator().manual_seed(self.data_seed)
        y = torch.ones(self.points)
        y[::2] = -1
        return y + torch.randn(self.points, generator=draw), y

    def loss(self, weights: np.ndarray, what: Callable[[Callable], Callable] = lambda loss: loss) -> np.ndarray:
        """Mean logistic loss over all points, or what a transformation makes of it, at every one of `weights`."""
        margins = torch.mul(*self.sample).double()
        mean_loss = what(lambda point: F.softplus(-margins * point.prod()).mean())
        found = vmap(mean_loss)(torch.from_numpy(weights).view(-1, 2)).numpy()
        return found.reshape(weights.shape[:-1] + found.shape[1:])

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """The loss's gradient, (..., 2)."""
        return self.loss(weights, grad)

    def sharpness(self, weights: np.ndarray) -> np.ndarray:
        """Largest eigenvalue of the loss's Hessian."""
        return np.linalg.eigvalsh(self.loss(weights, lambda loss: jacrev(grad(loss))))[..., -1]

    @cached_property
    def valley(self) -> float:
        """The product w theta at which the loss, convex in it, is least."""
        return brentq(lambda product: self.gradient(np.array([product, 1.0]))[0], 0, 10, xtol=1e-14)


Walk = tuple[np.ndarray, np.ndarray]  # (theta, w) before each step and at the end, (steps + 1, 2); phantoms, (steps, 2)


def walk(method: str, rho: float, steps: int, seed: int, surface: Surface = Surface()) -> Walk:
    """`steps` steps of one of `METHODS` from the surface's start, with each step's phantom; `seed` draws the batches,
    for all methods the same. Raises ValueError for an unknown method."""
    check.choice("method", method, METHODS)
    model, (x, y) = product_net(*surface.start), surface.sample
    optimizer = VARIANTS[method.lower()](model, rho, {"lr": surface.learning_rate})
    draw = torch.Generator().manual_seed(seed)
    visited: list[list[list[float]]] = []  # in each step: w, and w~ where there is one

    def closure(batch: Tensor) -> Tensor:
        visited[-1].append([p.item() for p in model.parameters()])
        optimizer.zero_grad()
        loss = F.softplus(-y[batch] * model(x[batch, None])).mean()
        loss.backward()
        return loss

    for _ in range(steps):
        visited.append([])
        optimizer.step(partial(closure, torch.randint(surface.points, (surface.batch_size,), generator=draw)))
    last = [p.item() for p in model.parameters()]
    return np.array([*(points[0] for points in visited), last]), np.array([points[-1] for points in visited])


def walks(method: str, rho: float, steps: int, seeds: int) -> np.ndarray:
    """The weights of walks with seeds 0, 1, ...: shape (seeds, steps + 1, 2)."""
    return np.stack([walk(method, rho, steps, seed)[0] for seed in range(seeds)])


# What holds in every step, measured on a small conv net with batch norm.

STEPS, IMAGES, CLASSES = 10, 16, 3
BASE = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}

Run = tuple[nn.Module, Optimizer]


@torch_threads(1)  # on so small a net more would only wait for each other
def measure(method: str, rho: float, seed: int = 0) -> dict[str, float]:
    """What holds in every step of ``"SAM"`` or ``"LSAM"`` (fused), radius `rho`, on noise images drawn by `seed`:
    largest absolute deviations over ten steps; a deviation of nothing at all is 0.

    distance: of ||w~ - w|| from rho, as a fraction of rho. restoration: of the weights after a step of learning rate 0
    from those before. rho_zero: of weights, batch-norm buffers and momentum at rho = 0 from those of torch.optim.SGD.
    resumed: of the same in a run that was saved, loaded and went on, from one without a break. fused: of the same after
    LSAM's fused steps, from steps that evaluate twice. batch_norm_steps: how many batch norm has counted, of ten.
    """
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    start = Net(body, nn.Linear(8 * 8 * 8, CLASSES))
    data = [(torch.randn(IMAGES, 1, 16, 16), torch.randint(CLASSES, (IMAGES,))) for _ in range(STEPS)]
    run, half = partial(_run, start, method), STEPS // 2
    whole, plain = run(rho, data), _run(start, "SGD", 0.0, data)
    norms = [run(rho, data[: number + 1])[1].phantom_norm for number in range(STEPS)]
    resumed = _run(start, method, rho, data[half:], saved=run(rho, data[:half]))
    return {
        "distance": max(abs(norm - rho) for norm in norms) / (rho or 1),
        "restoration": _difference(run(rho, data, lr=0.0)[0].parameters(), start.parameters()),
        "rho_zero": _difference(_everything(run(0.0, data)), _everything(plain)),
        "resumed": _difference(_everything(resumed), _everything(whole)),
        "fused": _difference(_everything(run(rho, data, fused=False)), _everything(whole)),
        "batch_norm_steps": int(whole[0].body[1].num_batches_tracked),
    }


def hold(found: Mapping[str, float]) -> bool:
    """Whether each of what was measured is exact, but for the distance, which single precision rounds."""
    return found["distance"] < 1e-5 and found["restoration"] == found["rho_zero"] == found["resumed"] == 0


def _run(start: nn.Module, method: str, rho: float, data: list, saved=None, fused: bool = True, **settings) -> Run:
    """A copy of the net and its optimizer after a step on each batch, on from where a `saved` run ended."""
    model = copy.deepcopy(start)
    optimizer = VARIANTS[method.lower()](model, rho, {**BASE, **settings})
    for own, others in zip((model, optimizer), saved or ()):
        own.load_state_dict(copy.deepcopy(others.state_dict()))

    def closure(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    for batch in data:
        take_step(model, optimizer, *batch) if fused else optimizer.step(partial(closure, *batch))
    return model, optimizer


def _everything(run: Run) -> Iterable[Tensor]:
    """Weights, buffers and momentum."""
    momentum = [value for state in run[1].state_dict()["state"].values() for value in state.values()]
    return [*run[0].state_dict().values(), *momentum]


def _difference(first: Iterable[Tensor], second: Iterable[Tensor]) -> float:
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(first, second, strict=True))


# What a step costs, side by side on the conv net, as ratios to SGD's.

GOALS = {"LSAM": 1.10, "SAM": 2.10}  # at most this many times SGD's step: goals set here, not the paper's
WARM_UP, LEAST_ROUNDS = 2, 8


def step_times(
    seconds: float,
    batch_size: int = 100,
    threads: int = 1,
    device: torch.device | str = "cpu",
    methods: Sequence[str] = ("SGD", "LSAM", "SAM"),
    height: int = 64,
    period: int = 1,
) -> pd.DataFrame:
    """Seconds of a step of each of `methods` (LSAM's is fused) on `ConvNet`, a row a round, measured for about
    `seconds`, eight rounds at least. Raises ValueError for a number out of range.

    Each method has a net of its own from one seed, in channels_last; all see one batch of noise images of `height` by
    32 pixels. A round takes `period` steps of each, beginning with another than the last, so that whatever else the
    machine does falls on all alike; a few before the first do not count. With one thread on the CPU the clock is the
    process's own, which leaves out what other programs take; elsewhere it is the wall's.
    """
    check.number("seconds", seconds, 0)
    check.whole("batch_size", batch_size, 1)
    check.whole("threads", threads, 1)
    device, rounds = torch.device(device), []
    clock = time.process_time if device.type == "cpu" and threads == 1 else time.perf_counter
    steps = {name: prepared(name.lower(), batch_size, height, device)[1] for name in methods}
    with torch_threads(threads):
        begin = clock()
        while len(rounds) < WARM_UP + LEAST_ROUNDS or clock() - begin < seconds:
            first = len(rounds) % len(methods)
            rounds.append({})
            for name in (*methods[first:], *methods[:first]):
                start = clock()
                for _ in range(period):
                    steps[name]()
                if device.type != "cpu":
                    torch.accelerator.synchronize()
                rounds[-1][name] = (clock() - start) / period
    return pd.DataFrame(rounds[WARM_UP:], columns=list(methods))


def prepared(
    method: str, batch_size: int, height: int, device: torch.device = torch.device("cpu")
) -> tuple[ConvNet, Callable[[], object]]:
    """A fresh conv net, the same for every method, and a function that takes a step with one batch of noise images,
    `height` by 32 pixels."""
    torch.manual_seed(0)
    model = ConvNet(height=height).to(device, memory_format=torch.channels_last)
    images = torch.randn(batch_size, 3, height, 32).to(device, memory_format=torch.channels_last)
    labels = torch.randint(2, (batch_size,)).to(device)
    settings = {"lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4}
    optimizer = VARIANTS[method](model, 0.0 if method in WITHOUT_RADIUS else 0.05, settings)
    return model, partial(take_step, model, optimizer, images, labels)


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Every time over that of the first method in the same round."""
    return times.div(times.iloc[:, 0], axis=0)


def costs(times: pd.DataFrame) -> pd.DataFrame:
    """Of each method, a row each, the medians over rounds of its `seconds` and of its `ratio` to the first, with the
    ratio's 95 % bootstrap interval, `low` to `high`."""
    found = ratios(times)
    how = {"n_resamples": 4000, "method": "percentile", "rng": 0}
    ends = [bootstrap((found[name],), np.median, **how).confidence_interval for name in found]
    middle = {"seconds": times.median(), "ratio": found.median()}
    return pd.DataFrame(middle).join(pd.DataFrame(ends, found.columns, ["low", "high"]))


def verdict(method: str, low: float, high: float) -> str:
    """``"met"`` where the interval of a ratio is within the method's goal, ``"missed"`` where it lies beyond, else
    ``"undecided"``."""
    return "met" if high <= GOALS[method] else "missed" if low > GOALS[method] else "undecided"


# Figures.

COLOURS = {"SGD": style.SGD, "SAM": style.SAM, "LSAM": style.LSAM}
INK = "#22272E"
SHADES = sns.light_palette("#5A6675", 12)[:9]  # flat is light
ABOVE_LEAST = np.array([0, 0.004, 0.015, 0.035, 0.07, 0.12, 0.2, 0.32, 0.5, 50])  # loss above its minimum


def anatomy(weights: tuple[float, float], rho: float, rate: float = 2.0, surface: Surface = Surface()) -> Figure:
    """One step of each method from `weights`, (theta, w), on the loss of all points; learning rate `rate`."""
    fig, [axes] = style.panels(["last layer $w$"], METHODS, 2.15, sharey=True)
    start, half_width = np.array(weights), max(0.9, 1.4 * rho)
    upward = surface.gradient(start)
    directions = np.zeros(2), upward / np.linalg.norm(upward), np.array([0, np.sign(upward[1])])
    for ax, method, direction in zip(axes, METHODS, directions):
        colour, phantom = COLOURS[method], start + rho * direction
        descent = -rate * surface.gradient(phantom)
        _draw(ax, method, start[:, None] + half_width * np.array([-1, 1]), surface)
        if method == "SAM":
            ax.add_patch(Circle(start, rho, fill=False, ec=colour, lw=0.9, ls=":"))
        elif method == "LSAM":
            ax.plot([start[0]] * 2, start[1] + np.array([-rho, rho]), color=colour, lw=0.9, ls=":")
        if method != "SGD" and rho > 0:
            _arrow(ax, start, phantom, colour, ls=(0, (3, 1.5)), lw=1.2)
            _arrow(ax, phantom, phantom + descent, colour, alpha=0.4)
            ax.plot(*phantom, "o", ms=5, mfc="white", mec=colour, mew=1.2)
            ax.annotate("phantom", phantom, (6, 2), textcoords="offset points", color=INK, fontsize=9)
        _arrow(ax, start, start + descent, colour)
        ax.plot(*start, "o", ms=5, color=INK)
        ax.annotate("real", start, (6, -4), textcoords="offset points", color=INK, fontsize=9)
    return fig


def trajectories(walks: Mapping[str, Walk], every: int = 10, surface: Surface = Surface()) -> Figure:
    """One walk of each method over the loss surface, with the phantom of every `every`-th step."""
    fig, [axes] = style.panels(["last layer $w$"], METHODS, 2.15, sharey=True)
    for ax, (method, (weights, phantoms)) in zip(axes, walks.items()):
        colour, phantoms = COLOURS[method], phantoms[::every]
        _draw(ax, method, np.array([[0, 3.6]] * 2), surface)
        ax.plot([0, 3.6], [0, 3.6], color="white", lw=0.8, alpha=0.8)
        ax.plot(*np.stack([weights[:-1:every], phantoms]).T.swapaxes(1, 2), color=colour, lw=0.6, alpha=0.55)
        ax.plot(*phantoms.T, "o", ms=2.6, mfc="white", mec=colour, mew=0.7, ls="")
        ax.plot(*weights.T, color="white", lw=2.6)
        ax.plot(*weights.T, color=colour, lw=1.4)
        ax.plot(*weights[0], "s", ms=5, color=INK)
        ax.plot(*weights[-1], "o", ms=6.5, color=colour, mec="white", mew=1.2)
        ax.set(xticks=range(4), yticks=range(4))
    return fig


def drift(weights: Mapping[str, np.ndarray], surface: Surface = Surface()) -> Figure:
    """Feature size and sharpness at every step, mean over seeds; `weights` is (seeds, steps + 1, 2)."""
    fig, axes = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 2.6))
    for method, runs in weights.items():
        for ax, values in zip(axes, (runs[..., 0], surface.sharpness(runs))):
            style.line(ax, range(values.shape[1]), values.T, COLOURS[method], lw=1.5, label=method)
    balanced = np.full(2, surface.valley**0.5)
    for ax, value in zip(axes, (balanced[0], surface.sharpness(balanced))):
        ax.axhline(value, color=style.GREY, lw=0.8, ls=":")
        ax.set(xlabel="step", xlim=(0, None))
    axes[0].set(title="size of the feature", ylabel=r"body $\theta$", ylim=0)
    axes[1].set(title="sharpness", ylabel="largest Hessian eigenvalue", yscale="log")
    style.plain(axes[1].yaxis, ticks=[0.25, 0.5, 1, 2])
    axes[0].legend(loc="lower left")
    return fig


def cost(times: pd.DataFrame) -> Figure:
    """Every round's ratio to the first method's step, with the median, its 95 % interval and, where there is one, the
    goal."""
    shown, found = ratios(times).iloc[:, 1:], costs(times).iloc[1:]
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 1.1 + 0.3 * len(found)))
    colours = [COLOURS.get(method, style.SAM) for method in shown]
    sns.stripplot(shown, orient="h", size=3.6, jitter=0.16, palette=colours, alpha=0.45, zorder=1, ax=ax)
    ax.hlines(range(len(found)), found["low"], found["high"], color=INK, lw=2)
    ax.plot(found["ratio"], range(len(found)), "o", ms=5, color=INK)
    for row, method in enumerate(shown):
        ax.vlines(GOALS.get(method, np.nan), row - 0.36, row + 0.36, color=style.GREY, lw=1.2, ls=(0, (3, 2)))
    style.rows(ax, list(shown))
    ax.axvline(1, color=COLOURS["SGD"], lw=1.2, zorder=0)
    ax.text(0.99, -0.5, "SGD", color=COLOURS["SGD"], ha="right", va="top", fontsize=9)
    ax.set_xlabel("time of a step, as a multiple of SGD's")
    return fig


def _draw(ax: Axes, method: str, window: np.ndarray, surface: Surface) -> None:
    """Shade the loss over a window, [[theta from, to], [w from, to]]; the dashed line is the valley."""
    grid = np.stack(np.meshgrid(*(np.linspace(*sides, 200) for sides in window)), axis=-1)
    least = surface.loss(np.array([surface.valley, 1.0]))
    ax.contourf(grid[..., 0], grid[..., 1], surface.loss(grid), least + ABOVE_LEAST, colors=SHADES)
    along = np.linspace(max(window[0, 0], surface.valley / window[1, 1]), window[0, 1], 200)
    ax.plot(along, surface.valley / along, color="white", lw=1.1, ls=(0, (5, 3)))
    ax.set(xlim=window[0], ylim=window[1], aspect="equal", xlabel=r"body $\theta$")
    ax.set_title(method, color=COLOURS[method])


def _arrow(ax: Axes, tail: np.ndarray, head: np.ndarray, colour: str, **settings) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    ax.annotate("", head, tail, arrowprops=arrow | settings)
