"""A figure as one SVG file for every page: transparent, in colours of day and night, laid out for a desk and anew for a
phone."""

from __future__ import annotations

import io
import re
from base64 import b64decode, b64encode

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, QuadMesh
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.text import Text
from PIL import Image

PHONE = 4.1  # inches, which a phone shows on about 350 px: letters of LETTERS points are 11 px there
LETTERS = 9.4
MANY, DENSITY = 60, 110  # marks of one kind that are drawn as pixels instead, and of how many to the inch
NIGHT = {  # lightness is turned over and hues stay; photographs keep both, and only their words turn
    False: "svg svg{filter:invert(.9) hue-rotate(180deg)}",
    True: "use{fill:#dfe5ec}",
}
SHORTER = {  # what matplotlib writes, and what says the same
    r"(?s)<!--.*?-->|<metadata>.*?</metadata>|^.*?(?=<svg)": "",
    r' id="[a-zA-Z]+[\w.]*_\d+"': "",  # nothing refers to these
    r"-?\d+\.\d{2,}(?!\d|%)": lambda one: f"{float(one[0]):{'.1f' if abs(float(one[0])) >= 1 else '.3g'}}",
    r'xlink:(href="#?)(?:DejaVuSans)?': r"\1",
    r"<defs>\s*<style.*?</style>\s*</defs>": "",
    r'(<use href="[^"]*") transform="translate\((\S+) 0\)"/>': r'\1 x="\2"/>',
    r"\s*\n\s*": " ",
    r"(?<=>) (?=<)": "",
    r"<defs/>|<g></g>": "",
    r'(?<= d=")M \S+ \S+ (?:L \S+ \S+ ?)+(?=z? ?")': lambda line: _with_fewer_corners(line[0]),
    r" ?\b([A-Z]) (?=[-\d])": r"\1",  # in paths
    r'(?<=data:image/png;base64,)[^"]+': lambda picture: _in_256_colours(picture[0]),
}
GLYPH = re.compile(r'<path id="DejaVuSans([^"]+)" d="([^"]*)"[^>]*/>')  # in units of 1/64
NUMBER = re.compile(r"\d+")
STYLE = re.compile(r' style="([^"]*)"')
FOR_A_PHONE = re.compile(r"<svg y=.*?</svg>")
SPACE = re.compile(r" (?=(?:[^$]*\$[^$]*\$)*[^$]*$)")  # outside formulas


def svg(fig: Figure) -> str:
    """The figure as it is and, below it and out of sight, as `for_a_phone` lays it out, in which it stays."""
    for marks in fig.findobj(Collection):
        marks.set_rasterized(isinstance(marks, (QuadMesh, ContourSet)) or len(marks.get_offsets()) > MANY)
    for marks in fig.findobj(Line2D):
        marks.set_rasterized(marks.get_marker() not in ("None", "") and len(marks.get_xdata()) > MANY)
    night = NIGHT[bool(fig.findobj(AxesImage))]
    width, height = (72 * fig.get_size_inches()).round().astype(int)
    drawn = _drawn(fig, f'width="{width}" height="{height}"')
    if for_a_phone(fig):
        across, down = (72 * fig.get_size_inches()).round().astype(int)
        drawn += _drawn(fig, f'y="{height}" width="{across}" height="{down}"')
    outlines = {name: NUMBER.sub(lambda one: f"{int(one[0]) / 8:.0f}", path) for name, path in GLYPH.findall(drawn)}
    glyphs = "".join(f'<path id="{name}" d="{path}" transform="scale(.125)"/>' for name, path in outlines.items())
    drawn = GLYPH.sub("", drawn).replace("<defs></defs>", "")
    classes = {style: f"s{number}" for number, style in enumerate(dict.fromkeys(STYLE.findall(drawn)))}
    drawn = STYLE.sub(lambda style: f' class="{classes[style[1]]}"', drawn)
    styles = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    styles = f"*{{stroke-linejoin:round;stroke-linecap:butt}}{styles}@media (prefers-color-scheme:dark){{{night}}}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>{styles}</style>'
    return f"{head}<defs>{glyphs}</defs>{drawn}</svg>".replace('"', "'")


def _drawn(fig: Figure, place: str) -> str:
    """One layout as an <svg> within another."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with plt.rc_context({"svg.hashsalt": place, "svg.fonttype": "path"}):
        fig.savefig(file, format="svg", transparent=True, dpi=DENSITY, metadata=nothing)
    text = file.getvalue()
    for written, shorter in SHORTER.items():
        text = re.sub(written, shorter, text)
    return re.sub(r'<svg.*?(viewBox="[^"]*").*?>', rf"<svg {place} \1>", text, count=1).strip()


def _with_fewer_corners(line: str) -> str:
    """A line, or the outline of an area, without corners that nobody sees."""
    path = Path(np.array([corner.split() for corner in line[2:].split(" L ")], float))
    path.simplify_threshold = 0.15  # points
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in path.cleaned(simplify=True).vertices[:-1])


def _in_256_colours(picture: str) -> str:
    file = io.BytesIO()
    few = Image.open(io.BytesIO(b64decode(picture))).quantize(256, Image.Quantize.FASTOCTREE)
    few.save(file, "PNG", optimize=True)
    return b64encode(file.getvalue()).decode()


def for_a_phone(fig: Figure) -> bool:
    """Lay `fig` out anew: as wide as a phone, panels of a row below each other, letters of LETTERS points or more.

    False, and `fig` stays as it is, where it is no single grid of panels or has colour bars.
    """
    panels = {}
    for panel in fig.axes:
        if place := panel.get_subplotspec():
            panels[place.rowspan.start, place.colspan.start] = panel
    if len(panels) < len(fig.axes) or fig.subfigs or not fig.get_layout_engine():
        return False
    rows, columns = panels[0, 0].get_gridspec().get_geometry() if panels else (1, 1)
    across = -(-columns // 3)  # panels of a row that stay beside each other
    down = -(-columns // across)
    for text in fig.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), LETTERS))
    fig.set_size_inches(PHONE, fig.get_size_inches()[1] * down)
    grid = GridSpec(rows * down, across, figure=fig)
    for (row, column), panel in panels.items():
        panel.set_subplotspec(grid[row * down + column // across, column % across])
        _share_labels(panel, panels.get((rows - 1, column), panel), panels[row, 0])
    fig.draw_without_rendering()
    for legend in fig.legends:
        _narrow(legend, fig.bbox.width)
    _break(fig.texts, fig.bbox.width)
    for panel in panels.values():
        (width, height), centre = panel.bbox.size, panel.bbox.x0 + panel.bbox.width / 2
        _break([panel.xaxis.label], 2 * min(centre, fig.bbox.width - centre))
        _break([panel.yaxis.label], 1.15 * height)
        _break([text for text in panel.get_children() if isinstance(text, Text)], 1.1 * width)
        names = panel.get_yticklabels()
        if _break(names, 0.35 * fig.bbox.width):
            panel.set_yticks(panel.get_yticks(), [name.get_text() for name in names])
            fig.set_figheight(fig.get_figheight() + 0.12 * len(names))
    return True


def _share_labels(panel: Axes, x: Axes, y: Axes) -> None:
    """Give `panel` the labels that it shares with the panels `x` below and `y` beside it."""
    for axis, shared, other in (("x", panel.get_shared_x_axes(), x), ("y", panel.get_shared_y_axes(), y)):
        if shared.joined(panel, other):
            panel.tick_params(axis, **{"labelbottom" if axis == "x" else "labelleft": True})
            label = getattr(panel, f"{axis}axis").label
            label.set_text(label.get_text() or getattr(other, f"{axis}axis").label.get_text())


def _narrow(legend: Legend, room: float) -> None:
    """Put the entries of `legend` into as many columns as have room."""
    columns = legend._legend_handle_box.get_children()
    entries = [entry for column in columns for entry in column.get_children()]
    while len(columns) > 1 and legend.get_window_extent().width > room:
        columns.pop()
        long = -(-len(entries) // len(columns))
        del columns[-(-len(entries) // long) :]
        for place, column in enumerate(columns):
            column.get_children()[:] = entries[place * long : (place + 1) * long]


def _break(texts: list[Text], room: float) -> bool:
    """Break each line of the `texts` that are longer than there is room at its middle; whether there were any."""
    long = [text for text in texts if max(text.get_window_extent().size) > room]
    for text in long:
        lines = []
        for line in text.get_text().split("\n"):
            spaces = [space.start() for space in SPACE.finditer(line)]
            middle = min(spaces, key=lambda place: abs(place - len(line) / 2), default=len(line))
            lines += [line[:middle], line[middle + 1 :]]
        text.set_text("\n".join(filter(None, lines)))
    return bool(long)
