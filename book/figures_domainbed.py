"""Chapter 8: what SAM gains on each target domain, in the paper and here."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from book import style
from book.domainbed import PUBLISHED, name, targets
from lib.stats import Estimate


def gains(own: Mapping[tuple[str, str], Estimate | None]) -> Figure:
    """One line a target domain: SAM's gain in probe accuracy over SGD, in percentage points; the paper's
    (hollow) and ours with its 95 % interval, where there is one."""
    rows = targets()
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 0.9 + 0.3 * len(rows)))
    for place, (benchmark, target) in enumerate(rows):
        sgd, sam = PUBLISHED[benchmark][target]
        ax.plot(
            100 * (sam - sgd),
            place,
            ls="",
            marker="o",
            ms=6,
            mfc="none",
            mec=style.GREY,
            mew=1.4,
            label="the paper" if place == 0 else None,
        )
    run = [place for place, key in enumerate(rows) if own.get(key)]
    effects = [own[rows[place]] for place in run]
    if effects:
        middle = [100 * effect.mean for effect in effects]
        ends = [
            [100 * (effect.mean - effect.low) for effect in effects],
            [100 * (effect.high - effect.mean) for effect in effects],
        ]
        ax.errorbar(middle, run, xerr=ends, fmt="D", ms=5, color=style.SAM, lw=1.4, label="here")
    for place in range(1, len(rows)):
        if rows[place][0] != rows[place - 1][0]:
            ax.axhline(place - 0.5, color=style.GREY, lw=0.5)
    ax.axvline(0, color="black", lw=0.6)
    ax.set(
        yticks=range(len(rows)),
        yticklabels=[name(*row) for row in rows],
        ylim=(len(rows) - 0.4, -0.6),
        xlabel="gain of SAM over SGD in the probe's accuracy (points)",
    )
    ax.tick_params(axis="y", length=0)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
