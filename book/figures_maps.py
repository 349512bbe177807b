"""Maps of importance weights over the signed contributions of both features (Figures 5 and 8)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from lib.importance import WeightMap

LEAST = 3  # points that a bin of a map needs to be drawn
SYMBOLS = (r"real, $\lambda$", r"phantom, $\tilde\lambda$", r"ratio $\tilde\lambda/\lambda$")


def shown(table: WeightMap) -> np.ndarray:
    """Medians of the bins with enough points, NaN elsewhere."""
    return np.where(table.count >= LEAST, table.median, np.nan)


def decades(ratio: WeightMap) -> tuple[np.ndarray, float]:
    """Decimal logarithm of a map of ratios, and the size that 95 % of its bins stay within."""
    values = np.log10(shown(ratio))
    return values, float(np.nanquantile(np.abs(values), 0.95))


def draw(axes: Axes, table: WeightMap, values: np.ndarray, norm: Normalize, cmap: str) -> QuadMesh:
    """One map: `values` (easy bin, hard bin), the easy contribution to the right, the hard one upwards."""
    axes.set_facecolor("#EFEFEF")
    mesh = axes.pcolormesh(table.easy_edges, table.hard_edges, values.T, norm=norm, cmap=cmap)
    axes.axhline(0, color="black", linewidth=0.7, linestyle=(0, (1, 2)))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return mesh
