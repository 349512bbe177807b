"""Figures of the toy chapters."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book import style
from lib.data.toy import ToySample
from lib.stats import bootstrap_band

PLOTLY_SCALE = [[0.0, style.NEGATIVE], [0.5, "#F7F4EF"], [1.0, style.POSITIVE]]


def grid(points: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """A square grid around `points` (n, 2): its ticks (resolution,) and its nodes (resolution**2, 2), rows
    from the bottom up."""
    limit = 1.15 * np.abs(points).max()
    ticks = np.linspace(-limit, limit, resolution)
    return ticks, np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)


def _contour(
    axes: Axes, ticks: np.ndarray, values: np.ndarray, points: np.ndarray, y: np.ndarray, bound: float
) -> None:
    """One panel: w_i f_i over the plane, its zero line, and the training points by label."""
    surface = values.reshape(len(ticks), len(ticks))
    axes.contourf(
        ticks, ticks, np.clip(surface, -bound, bound), levels=np.linspace(-bound, bound, 21), cmap=style.DIVERGING
    )
    axes.contour(ticks, ticks, surface, levels=[0], colors="black", linewidths=1)
    for label, colour, marker in ((-1, style.NEGATIVE, "o"), (1, style.POSITIVE, "^")):
        chosen = y == label
        axes.scatter(*points[chosen].T, s=9, c=colour, marker=marker, edgecolors="white", linewidths=0.3)
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def feature_contours(
    sample: ToySample,
    ticks: tuple[np.ndarray, np.ndarray],
    surfaces: np.ndarray,
    columns: Sequence[str],
    errors: np.ndarray,
) -> Figure:
    """Figure 1: both learned features over the training data.

    ticks: of the easy and the hard plane; surfaces (method, 2, nodes): w_e f_e and w_h f_h; errors (method,
    2): probing errors.
    """
    fig, axes = plt.subplots(2, len(columns), figsize=(1.65 * 2 * len(columns), 6.6), squeeze=False)
    for row, feature in enumerate(("easy", "hard")):
        points = sample.x[:, 2 * row : 2 * row + 2]
        bound = np.quantile(np.abs(surfaces[:, row]), 0.97)
        for column, name in enumerate(columns):
            _contour(axes[row, column], ticks[row], surfaces[column, row], points, sample.y, bound)
            axes[row, column].set_title(
                f"{name}: {feature} feature, error {errors[column, row]:.3f}", loc="center", fontsize=9
            )
    return fig


def error_against_rho(
    rhos: Sequence[float],
    lines: dict[str, np.ndarray],
    ylabel: str,
    axes: Axes | None = None,
    colours: Sequence | None = None,
    markers: str = "osD^vPX*",
) -> Figure:
    """Figure 2A: mean over seeds against rho, one line for each entry of `lines` (rhos, seeds), with 95 %
    bootstrap bands."""
    if axes is None:
        _, axes = plt.subplots(figsize=(style.PAGE_WIDTH * 0.8, 3.6))
    colours = style.sequence(len(lines)) if colours is None else colours
    for (name, values), colour, marker in zip(lines.items(), colours, markers, strict=False):
        mean, low, high = bootstrap_band(values)
        axes.fill_between(rhos, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(rhos, mean, color=colour, marker=marker, markersize=4, label=name)
    axes.set(xlabel=r"LSAM radius $\rho$ (0: SGD)", ylabel=ylabel)
    return axes.figure


def three_errors(rhos: Sequence[float], complexities: Sequence[float], errors: dict[str, np.ndarray]) -> Figure:
    """Figure 2A with its context: one panel for each entry of `errors` (complexity, rho, seed), sharing the
    lines' meaning."""
    fig, axes = plt.subplots(
        1, len(errors), figsize=(style.PAGE_WIDTH, 3.1), width_ratios=[1.6] + [1] * (len(errors) - 1)
    )
    for panel, (name, values) in zip(axes, errors.items(), strict=True):
        lines = {f"{complexity:g}°": value for complexity, value in zip(complexities, values, strict=True)}
        error_against_rho(rhos, lines, name, panel)
        panel.set_ylim(bottom=-0.004)
    top = max(0.02, *(1.05 * panel.get_ylim()[1] for panel in axes[1:]))
    for panel in axes[1:]:
        panel.set_ylim(-0.02 * top, top)
        panel.set_xlabel(r"radius $\rho$")
    axes[0].legend(title=r"complexity $\kappa$", loc="upper right")
    return fig


def contour_slider(
    sample: ToySample, ticks: np.ndarray, surfaces: np.ndarray, rhos: Sequence[float], errors: Sequence[float]
) -> go.Figure:
    """The hard feature's contour with a slider for rho: surfaces (rho, nodes), errors (rho,), both of one
    seed's nets."""
    fig = go.Figure()
    bound = float(np.quantile(np.abs(surfaces), 0.97))
    # Plotly stores a float32 array as base64, a list as text three times as long.
    rounded = ticks.astype(np.float32)
    for index, surface in enumerate(surfaces):
        values = np.clip(surface, -bound, bound).reshape(len(ticks), -1).astype(np.float32)
        fig.add_contour(
            x=rounded,
            y=rounded,
            z=values,
            visible=index == 0,
            colorscale=PLOTLY_SCALE,
            zmin=-bound,
            zmax=bound,
            contours={"start": -bound, "end": bound, "size": bound / 10},
            line={"width": 0},
            hoverinfo="skip",
            colorbar={"title": "w<sub>h</sub> f<sub>h</sub>", "thickness": 12, "len": 0.8},
        )
    for label, colour, symbol in ((-1, style.NEGATIVE, "circle"), (1, style.POSITIVE, "triangle-up")):
        chosen = sample.y == label
        fig.add_scatter(
            x=sample.x[chosen, 2],
            y=sample.x[chosen, 3],
            mode="markers",
            name=f"y = {label:+d}",
            hoverinfo="skip",
            marker={"color": colour, "symbol": symbol, "size": 6, "line": {"color": "white", "width": 0.6}},
        )
    steps = [
        {
            "label": f"{rho:g}",
            "method": "update",
            "args": [
                {"visible": [i == index for i in range(len(rhos))] + [True, True]},
                {"title.text": _slider_title(rho, error)},
            ],
        }
        for index, (rho, error) in enumerate(zip(rhos, errors, strict=True))
    ]
    fig.update_layout(
        title={"text": _slider_title(rhos[0], errors[0]), "x": 0.5, "font": {"size": 15}},
        height=520,
        template="plotly_white",
        margin={"l": 10, "r": 10, "t": 50, "b": 10},
        showlegend=False,  # the caption says it: a legend would meet the title on a phone
        sliders=[{"steps": steps, "currentvalue": {"prefix": "radius ρ = "}, "pad": {"t": 15}}],
        xaxis={"visible": False, "constrain": "domain"},
        yaxis={"visible": False, "scaleanchor": "x"},
    )
    return fig


def _slider_title(rho: float, error: float) -> str:
    return f"{'SGD' if rho == 0 else f'LSAM, ρ = {rho:g}'}: hard probing error {error:.3f}"


def headline(
    sample: ToySample,
    ticks: np.ndarray,
    surfaces: np.ndarray,
    names: Sequence[str],
    rhos: Sequence[float],
    lines: dict[str, np.ndarray],
) -> Figure:
    """The book in one picture: the hard feature under SGD and LSAM (surfaces (2, nodes)), and its error
    against rho."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 2.7), width_ratios=[1, 1, 1.1])
    bound = np.quantile(np.abs(surfaces), 0.97)
    for panel, surface, name in zip(axes, surfaces, names, strict=False):
        _contour(panel, ticks, surface, sample.x[:, 2:], sample.y, bound)
        panel.set_title(f"hard feature, {name}", loc="center")
    error_against_rho(rhos, lines, "hard probing error", axes[2])
    axes[2].legend(title=r"complexity $\kappa$", fontsize=7, title_fontsize=7)
    axes[2].set_title("and its probing error", loc="center")
    return fig
