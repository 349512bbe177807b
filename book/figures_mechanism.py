"""Figures of chapter 05: which points the update listens to, at the real and the phantom head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from plotly.subplots import make_subplots

from book import style
from book.figures_toy import PLOTLY_SCALE
from book.mechanism import at, head_change, log_ratio_slopes
from lib.importance import WeightMap, gini, lorenz_curve, weight_map, worst_share
from lib.stats import bootstrap_band
from lib.toy.decomposition import Decomposition

COLOURS = (style.SGD, style.LSAM)  # of the two nets that are compared
MARKERS = "o^"
DASHED = (0, (3, 1.5))  # real weights; phantom ones are solid
SMALL = {"fontsize": 7, "borderpad": 0, "labelspacing": 0.25, "handlelength": 2.4}  # a legend in a panel


def _lorenz(axes: Axes, real: np.ndarray, phantom: np.ndarray, colour: str) -> None:
    """Both curves of one net, mean and band over seeds: weights (seed, n)."""
    for weights, line, width in ((real, DASHED, 1.3), (phantom, "-", 1.8)):
        fractions, shares = lorenz_curve(weights)
        _line(axes, fractions, shares.T, "", colour, linestyle=line, linewidth=width)
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.7, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))


def _line(axes: Axes, x: Sequence[float], values: np.ndarray, label: str, colour: str, **line) -> None:
    """Mean and 95 % bootstrap band of `values` (x, seed)."""
    mean, low, high = bootstrap_band(values)
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(x, mean, color=colour, label=label, **{"markersize": 3.8, "linewidth": 1.4, **line})


def lorenz(real: np.ndarray, phantom: np.ndarray, names: Sequence[str], zoom: float = 0.1) -> Figure:
    """Figure 3: Lorenz curves of two nets, and their Gini coefficients seed by seed; weights (net, seed, n).

    Insets enlarge the first `zoom` of the points; the second net's also shows the first net's real weights.
    """
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.0), width_ratios=[1, 1, 0.95])
    for net, (panel, name, colour) in enumerate(zip(axes, names, COLOURS)):
        inset = panel.inset_axes([0.42, 0.14, 0.55, 0.56])
        for part in (panel, inset):
            _lorenz(part, real[net], phantom[net], colour)
        if net:
            fractions, shares = lorenz_curve(real[0])
            inset.plot(fractions, shares.mean(axis=0), color=COLOURS[0], linestyle=DASHED, linewidth=1.1)
        inset.set(xlim=(0, zoom), xticks=[0, zoom], yticks=[0, 1])
        inset.tick_params(labelsize=7, length=2, pad=1)
        panel.set(title=name, xlabel="% of points, heaviest first")
        for axis in (panel.xaxis, panel.yaxis, inset.xaxis, inset.yaxis):
            axis.set_major_formatter(PercentFormatter(1, 0, symbol=""))
    axes[0].set_ylabel("share of all importance, %")
    for label, line in zip(style.WEIGHTS, (DASHED, "-")):
        axes[0].plot([], [], color=style.GREY, linestyle=line, label=label)
    axes[0].legend(
        loc="upper right",
        bbox_to_anchor=(1, 0.97),
        frameon=True,
        edgecolor="none",
        framealpha=1,
        **{**SMALL, "fontsize": 7.5, "borderpad": 0.2},
    )
    _gini_by_seed(axes[2], gini(np.stack([real, phantom], axis=1)))
    return fig


def _gini_by_seed(axes: Axes, values: np.ndarray) -> None:
    """Coefficients (net, real or phantom, seed): a line joins what belongs to one net."""
    for net, colour in enumerate(COLOURS):
        places = np.array([0, 1]) + 2 * net
        axes.plot(places, values[net], color="#CFCFCF", linewidth=0.6, zorder=1)
        for place, seeds, inside in zip(places, values[net], ("white", colour)):
            axes.scatter(
                np.full(seeds.size, place), seeds, s=13, facecolors=inside, edgecolors=colour, linewidths=0.8, zorder=2
            )
            axes.hlines(seeds.mean(), place - 0.3, place + 0.3, color="black", linewidth=1.6, zorder=3)
    axes.set(title="Gini coefficient", xlim=(-0.5, 3.5), xticks=range(4), xticklabels=["real", "phantom"] * 2)
    axes.tick_params(axis="x", length=0, labelsize=7.5)


def lorenz_through_training(parts: Decomposition, epochs: Sequence[int], names: Sequence[str]) -> Figure:
    """Figure 7: Lorenz curves at each checkpoint, a row for each net; `parts` (net, checkpoint, seed, n)."""
    fig, axes = plt.subplots(
        len(names),
        len(epochs),
        figsize=(style.PAGE_WIDTH, 1.55 * len(names) + 0.5),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for net, (row, name) in enumerate(zip(axes, names)):
        for panel, real, phantom in zip(row, parts.real[net], parts.phantom[net]):
            _lorenz(panel, real, phantom, COLOURS[net])
            panel.text(
                0.96,
                0.06,
                f"{gini(real).mean():.2f}\n{gini(phantom).mean():.2f}",
                ha="right",
                va="bottom",
                fontsize=7.5,
                transform=panel.transAxes,
                linespacing=1.3,
            )
            panel.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            panel.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=""))
        row[0].set_ylabel(name)
        row[0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    _epoch_titles(axes[0], epochs)
    fig.supxlabel("% of points, heaviest first", fontsize=9)
    return fig


def _epoch_titles(row: Sequence[Axes], epochs: Sequence[int]) -> None:
    for panel, epoch in zip(row, epochs):
        panel.set_title("start" if epoch == 0 else f"epoch {epoch}", loc="center", fontsize=8.5)


def pooled_maps(parts: Decomposition, bins: int) -> tuple[WeightMap, WeightMap, WeightMap]:
    """Figure 5 of one net (seed, n), pooled over seeds: maps of lambda, of lambda~ and of their ratio.

    The ratio is divided by its median over the points of the same seed. The edges leave out 0.5 % of the
    points at each end of either contribution.
    """
    edges = [np.linspace(*np.quantile(values, [0.005, 0.995]), bins + 1) for values in (parts.easy, parts.hard)]
    ratio = parts.phantom / parts.real
    ratio = ratio / np.median(ratio, axis=-1, keepdims=True)
    return tuple(
        weight_map(parts.easy.ravel(), parts.hard.ravel(), weights.ravel(), *edges)
        for weights in (parts.real, parts.phantom, ratio)
    )


def _level_lines(axes: Axes, table: WeightMap, easy_slope: float, hard_slope: float) -> None:
    """Lines along which easy_slope y w_e f_e + hard_slope y w_h f_h stays equal."""
    easy, hard = (edges[[0, -1]] for edges in (table.easy_edges, table.hard_edges))
    corners = easy_slope * easy[:, None] + hard_slope * hard
    for level in np.linspace(corners.min(), corners.max(), 6)[1:-1]:
        axes.plot(
            easy, (level - easy_slope * easy) / hard_slope, color="white", linewidth=1, scalex=False, scaley=False
        )


def weight_maps(parts: Decomposition, head: np.ndarray, names: Sequence[str], bins: int = 14) -> Figure:
    """Figure 5: median weight by both contributions, real and phantom, their ratio, and the count of points;
    a row for each net (net, seed, n), head (net, seed, 2). White lines: equal weight by equation (6)."""
    fig, axes = plt.subplots(
        len(names), 4, figsize=(style.PAGE_WIDTH, 2.05 * len(names) + 0.9), sharex="row", sharey="row"
    )
    tables = [pooled_maps(at(parts, net), bins) for net in range(len(names))]
    lightest = min(np.nanmin(style.shown(table)) for row in tables for table in row[:2])
    weight = LogNorm(10 ** np.floor(np.log10(lightest)), 1)
    bound = max(style.decades(row[2])[1] for row in tables)
    most = max(row[2].count.max() for row in tables)
    for net, (real, phantom, ratio) in enumerate(tables):
        row = axes[net]
        weights = style.weight_map(row[0], real, style.shown(real), weight, "viridis")
        style.weight_map(row[1], phantom, style.shown(phantom), weight, "viridis")
        ratios = style.weight_map(row[2], ratio, style.decades(ratio)[0], Normalize(-bound, bound), style.DIVERGING)
        counts = style.weight_map(row[3], ratio, ratio.count.astype(float), LogNorm(1, most), "Greys")
        _level_lines(row[0], real, 1, 1)
        _level_lines(row[1], real, *(1 - head_change(at(parts, net), head[net]).mean(axis=0)))
        row[0].set_ylabel(f"{names[net]}\n" + r"hard, $y\,w_h f_h$")
    for panel, title in zip(axes[0], (*style.WEIGHTS, "points")):
        panel.set_title(title, loc="center")
    for panel in axes[-1]:
        panel.set_xlabel(r"easy, $y\,w_e f_e$")
    bar = {"orientation": "horizontal", "pad": 0.03, "aspect": 22, "shrink": 0.92}
    fig.colorbar(weights, ax=axes[:, :2], label="median weight", **{**bar, "aspect": 44, "shrink": 0.7})
    reach = max(1, int(bound))
    ticks = fig.colorbar(ratios, ax=axes[:, 2], label="over the typical point's", extend="both", **bar)
    ticks.set_ticks([-reach, 0, reach], labels=[f"$10^{{-{reach}}}$", "1", f"$10^{{{reach}}}$"])
    fig.colorbar(counts, ax=axes[:, 3], label="in each bin", **bar)
    return fig


def maps_through_training(parts: Decomposition, epochs: Sequence[int], bins: int = 12, floor: float = 1e-10) -> Figure:
    """Figure 8 of one net (checkpoint, seed, n): median weights below `floor` share a colour; every map of
    ratios has a scale of its own, written below it."""
    fig, axes = plt.subplots(3, len(epochs), figsize=(style.PAGE_WIDTH, 4.3), squeeze=False)
    for c, column in enumerate(axes.T):
        real, phantom, ratio = pooled_maps(at(parts, c), bins)
        values, bound = style.decades(ratio)
        weights = style.weight_map(column[0], real, style.shown(real), LogNorm(floor, 1), "viridis")
        style.weight_map(column[1], phantom, style.shown(phantom), LogNorm(floor, 1), "viridis")
        ratios = style.weight_map(column[2], ratio, values / bound, Normalize(-1, 1), style.DIVERGING)
        factor = f"{10**bound:.2g}" if bound < 2 else f"10^{{{bound:.1f}}}"
        column[2].set_xlabel(rf"× or ÷ ${factor}$", fontsize=7.5, labelpad=1)
        for panel in column:
            panel.tick_params(labelsize=6.5, length=2, pad=1)
            panel.xaxis.set_major_locator(MaxNLocator(2))
            panel.yaxis.set_major_locator(MaxNLocator(3))
        for panel in column[:2]:
            panel.set_xticklabels([])
    for panel, label in zip(axes[:, 0], style.WEIGHTS):
        panel.set_ylabel(label)
    _epoch_titles(axes[0], epochs)
    bars = [
        fig.colorbar(weights, ax=axes[:2], extend="min", aspect=30, pad=0.015, fraction=0.05),
        fig.colorbar(ratios, ax=axes[2], extend="both", aspect=15, pad=0.015, fraction=0.05, ticks=[]),
    ]
    for bar, label in zip(bars, ("median weight", "less   more")):
        bar.set_label(label, fontsize=8.5)
        bar.ax.tick_params(labelsize=7.5)
    fig.supxlabel(r"easy, $y\,w_e f_e$", fontsize=9)
    fig.supylabel(r"hard, $y\,w_h f_h$", fontsize=9)
    return fig


def effects_through_training(parts: Decomposition, epochs: Sequence[int], names: Sequence[str]) -> Figure:
    """Gini coefficients, what the worst-fitted quarters gain, and slopes, at each checkpoint; `parts` (net,
    checkpoint, seed, n). Slopes begin after the start, where both contributions are near zero."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.4))
    slopes = log_ratio_slopes(parts)
    began = int(epochs[0] == 0)
    for net, (name, marker) in enumerate(zip(names, MARKERS)):
        look = {"marker": marker, "markerfacecolor": None if net else "white"}
        for weights, kind, line in ((parts.real, "real", DASHED), (parts.phantom, "phantom", "-")):
            _line(axes[0], epochs, gini(weights[net]), f"{name}, {kind}", COLOURS[net], linestyle=line, marker=marker)
        for i, (feature, colour) in enumerate((("easy", style.EASY), ("hard", style.HARD))):
            real, phantom = (
                worst_share(getattr(parts, feature)[net], weights[net]) for weights in (parts.real, parts.phantom)
            )
            _line(axes[1], epochs, phantom - real, f"{feature}, {name}", colour, **look)
            _line(axes[2], epochs[began:], slopes[net, began:, :, i], f"{feature}, {name}", colour, **look)
    titles = "Gini coefficient", "share gained by the worst fit", "slope of the log ratio"
    for panel, title in zip(axes, titles):
        panel.set_title(title, fontsize=9)
        panel.set_xscale("symlog", linthresh=1, linscale=0.4)
        panel.set(
            xlabel="epoch", xlim=(-0.08, 1.15 * epochs[-1]), xticks=[0, 1, 10, 100], xticklabels=["0", "1", "10", "100"]
        )
        panel.minorticks_off()
    for panel in axes[1:]:
        panel.axhline(0, color=style.GREY, linewidth=0.7)
    for panel in axes[:2]:
        panel.legend(loc="lower right", **SMALL)
    return fig


def explanations(
    rhos: Sequence[float],
    differences: Mapping[str, np.ndarray],
    slopes: np.ndarray,
    parts: Decomposition,
    names: Sequence[str],
) -> Figure:
    """What hangs on the radius (values of `against_rho`), and Gini coefficients against the mean weight as
    training goes on; `parts` (net, checkpoint, seed, n)."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.1))
    for (label, values), colour, marker in zip(differences.items(), (*COLOURS, style.SAM), MARKERS + "s"):
        _line(axes[0], rhos, values, label, colour, marker=marker)
    for i, (feature, colour) in enumerate((("easy", style.EASY), ("hard", style.HARD))):
        _line(axes[1], rhos, slopes[..., i], feature, colour, marker=MARKERS[i])
    for net, name in enumerate(names):
        for weights, kind, line in ((parts.real[net], "real", DASHED), (parts.phantom[net], "phantom", "-")):
            mean = np.exp(np.log(weights.mean(axis=-1)).mean(axis=-1))
            axes[2].plot(
                mean,
                gini(weights).mean(axis=-1),
                color=COLOURS[net],
                linestyle=line,
                linewidth=1.3,
                marker=MARKERS[net],
                markersize=3.8,
                label=f"{name}, {kind}",
            )
    axes[2].set(xscale="log", xlabel="mean weight")
    titles = "Gini, real minus phantom", "slopes, LSAM-trained", "Gini coefficient"
    for panel, title, place in zip(axes, titles, ("upper left", "upper left", "lower left")):
        panel.set_title(title, fontsize=9)
        panel.legend(loc=place, **SMALL)
    for panel in axes[:2]:
        panel.axhline(0, color=style.GREY, linewidth=0.7)
        panel.set_xlabel(r"LSAM radius $\rho$")
    return fig


def training_slider(parts: Decomposition, epochs: Sequence[int], names: Sequence[str], bins: int = 12) -> go.Figure:
    """Lorenz curves of both nets and the second net's map of ratios, with a slider for the epoch; `parts`
    (net, checkpoint, seed, n)."""
    fig = make_subplots(
        1, 2, horizontal_spacing=0.14, subplot_titles=("Lorenz curves", f"phantom over real weight, {names[1]}")
    )
    fraction = np.linspace(0, 1, 101)
    for c in range(len(epochs)):
        for net, name in enumerate(names):
            for weights, kind, dash in ((parts.real, "real", "dash"), (parts.phantom, "phantom", "solid")):
                x, shares = lorenz_curve(weights[net, c])
                shares = np.interp(fraction, x, shares.mean(axis=0))
                fig.add_scatter(
                    x=(100 * fraction).tolist(),
                    y=(100 * shares).round(1).tolist(),
                    mode="lines",
                    line={"color": COLOURS[net], "dash": dash, "width": 2.2},
                    name=f"{name}, {kind}",
                    hovertemplate="%{y:.0f} % of the importance in %{x:.0f} % of the points<extra></extra>",
                    visible=c == 0,
                    row=1,
                    col=1,
                )
        fig.add_trace(_heatmap(*pooled_maps(at(parts, 1, c), bins), visible=c == 0), row=1, col=2)
    each = len(fig.data) // len(epochs)
    fig.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        line={"color": style.GREY, "dash": "dot", "width": 1},
        row=1,
        col=1,
    )
    steps = [
        {
            "label": f"{epoch:g}",
            "method": "restyle",
            "args": ["visible", [i // each == c for i in range(each * len(epochs))] + [True]],
        }
        for c, epoch in enumerate(epochs)
    ]
    fig.update_layout(
        height=460,
        template="plotly_white",
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        legend={"orientation": "h", "x": 0, "y": -0.17, "yanchor": "top", "font": {"size": 11}},
        sliders=[{"steps": steps, "currentvalue": {"prefix": "epoch "}, "pad": {"t": 70}}],
    )
    fig.update_annotations(font_size=14)
    fig.update_xaxes(title={"text": "% of points, heaviest first", "standoff": 4}, range=[0, 100], row=1, col=1)
    fig.update_yaxes(title="% of all importance", range=[0, 101], row=1, col=1)
    fig.update_xaxes(
        title={"text": "easy, y w<sub>e</sub> f<sub>e</sub>", "standoff": 4},
        showgrid=False,
        zeroline=False,
        row=1,
        col=2,
    )
    fig.update_yaxes(title="hard, y w<sub>h</sub> f<sub>h</sub>", showgrid=False, row=1, col=2)
    return fig


def _heatmap(real: WeightMap, phantom: WeightMap, ratio: WeightMap, visible: bool) -> go.Heatmap:
    """A map of ratios whose bins tell their medians and counts."""
    values, bound = style.decades(ratio)
    centres = [((edges[1:] + edges[:-1]) / 2).round(3).tolist() for edges in (ratio.easy_edges, ratio.hard_edges)]
    texts = [
        [f"real {a:.1e}<br>phantom {b:.1e}<br>{n} points" for a, b, n in zip(*row)]
        for row in zip(real.median.T, phantom.median.T, ratio.count.T)
    ]
    cells = [[None if np.isnan(value) else round(float(value), 3) for value in row] for row in values.T]
    return go.Heatmap(
        x=centres[0],
        y=centres[1],
        z=cells,
        text=texts,
        colorscale=PLOTLY_SCALE,
        zmin=-bound,
        zmax=bound,
        hovertemplate="%{text}<extra></extra>",
        visible=visible,
        colorbar={"title": "log<sub>10</sub>", "thickness": 10, "len": 0.85},
    )
