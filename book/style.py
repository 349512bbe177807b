"""The one style and palette of every figure: colour-blind safe, told apart in grey by lightness."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns

# Okabe and Ito's hues (Color Universal Design, 2008).
SGD, SAM, LSAM = "#D55E00", "#0072B2", "#009E73"
EASY, HARD = "#E69F00", "#56438B"
NEGATIVE, POSITIVE = "#D55E00", "#0072B2"  # labels -1 and +1
GREY = "#6B6B6B"
DIVERGING = sns.blend_palette(["#D55E00", "#F7F4EF", "#0072B2"], as_cmap=True)
PAGE_WIDTH = 7.4  # inches: the text column of the book


def sequence(count: int) -> list:
    """`count` ordered colours, dark to light (seaborn's ``crest``), for one line per complexity, rho or
    checkpoint."""
    return sns.color_palette("crest_r", count)


def use_style() -> None:
    """Set matplotlib's defaults for the whole book; call once in a chapter's set-up cell."""
    sns.set_theme(
        context="paper",
        style="ticks",
        font_scale=1.05,
        rc={
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.figsize": (PAGE_WIDTH, 3.2),
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "figure.facecolor": "white",
            "svg.hashsalt": "book",
        },
    )
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=[SGD, LSAM, SAM, HARD, EASY, GREY])
    plt.rcParams["axes.unicode_minus"] = True
