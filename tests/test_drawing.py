"""A figure's SVG: the same picture for every page, transparent, and laid out anew for a phone."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from book import drawing, notebook, style

pytestmark = pytest.mark.usefixtures("styled")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def grid(rows: int, columns: int, **shared: str):
    """Panels with words, points and a legend."""
    fig, axes = plt.subplots(rows, columns, figsize=(style.PAGE_WIDTH, 2.5 * rows), squeeze=False, **shared)
    for panel in axes.flat:
        panel.plot([0, 1], label="a line of a long name")
        panel.set(xlabel=r"a label, $\rho = 1$, that is far longer than a phone is wide", ylabel="y label")
    for panel in axes[:, 1:].flat if shared else ():
        panel.set_ylabel("")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", fontsize=7)
    return fig, axes


@pytest.mark.parametrize("columns, across", [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_panels_of_a_row_stand_below_each_other_on_a_phone(columns, across):
    fig, axes = grid(2, columns)
    height = fig.get_figheight()
    assert drawing.for_a_phone(fig)
    down = -(-columns // across)
    assert fig.get_size_inches() == pytest.approx([drawing.PHONE, height * down])
    for row in range(2):
        for column in range(columns):
            place = axes[row, column].get_subplotspec()
            assert place.get_gridspec().get_geometry() == (2 * down, across)
            assert (place.rowspan.start, place.colspan.start) == (row * down + column // across, column % across)


def test_letters_are_large_and_nothing_is_cut_on_a_phone():
    fig, axes = grid(1, 2, sharey="row")
    fig.legends[0].remove()
    names = [f"{name} name that is as long as half of a phone is wide" for name in ("one", "another", "a third")]
    fig.legend(handles=[plt.Line2D([], [], label=name) for name in names], loc="outside upper center", ncols=3)
    drawing.for_a_phone(fig)
    fig.draw_without_rendering()
    words = [text for text in fig.findobj(Text) if text.get_visible() and text.get_text() not in ("", "1.2")]
    assert min(text.get_fontsize() for text in words) == drawing.LETTERS
    assert all(0 <= box.x0 and box.x1 <= fig.bbox.width for box in (text.get_window_extent() for text in words))
    assert axes[0, 1].get_ylabel() == "y label", "the label that the panel shared with the one beside it"
    assert any(name.get_visible() and name.get_text() for name in axes[0, 1].get_yticklabels())


@pytest.mark.parametrize("text, broken", [
    ("one two three", ["one\ntwo three", "one two\nthree"]),
    (r"a $\rho = 1 + 2 + 3$", ["a\n" + r"$\rho = 1 + 2 + 3$"]),
    ("oneword", ["oneword"]),
])  # fmt: skip
def test_a_long_text_is_broken_at_a_space_outside_of_formulas(text, broken):
    fig = plt.figure()
    shown = fig.text(0, 0, text)
    width = shown.get_window_extent().width
    assert not drawing._break([shown], width) and shown.get_text() == text
    assert drawing._break([shown], width - 1) and shown.get_text() in broken


def test_words_alone_stand_below_each_other_on_a_phone():
    fig = notebook.placeholder("Not drawn: the images are not on the machine that made this page.")
    assert drawing.for_a_phone(fig) and fig.get_figwidth() == drawing.PHONE
    fig.draw_without_rendering()
    assert "\n" in fig.texts[0].get_text() and fig.texts[0].get_window_extent().width < fig.bbox.width


def test_figures_with_colour_bars_keep_their_layout():
    fig, axes = plt.subplots(1, 2, layout="constrained")
    fig.colorbar(axes[0].pcolormesh(np.eye(9)), ax=axes)
    width = fig.get_figwidth()
    picture = drawing.svg(fig)
    assert fig.get_figwidth() == width and "<svg y" not in picture


def test_the_picture_is_transparent_the_same_each_time_and_small():
    pictures = []
    for _ in range(2):
        fig, axes = plt.subplots(1, 2, layout="constrained", figsize=(7.4, 3))
        axes[0].plot(np.linspace(0, 1, 3000), np.linspace(0, 1, 3000) ** 2)
        axes[0].fill_between(np.linspace(0, 1, 3000), np.linspace(0, 1, 3000) ** 3)
        axes[1].scatter(*np.random.default_rng(0).normal(size=(2, 5000)))
        pictures.append(drawing.svg(fig))
    first, second = pictures
    assert first == second and len(first) < 60_000
    assert len(re.findall("<image ", first)) == 2, "the cloud of points, in each layout"
    views = re.findall(r"viewBox='([^']*)'", first)
    assert views == ["0 0 533 216", "0 0 532.8 216", "0 0 295.2 432"]
    assert "fill: #ffffff" not in first and "prefers-color-scheme:dark" in first and "\n" not in first
    zero = re.search(r"<path id='-13' d='([^']*)' transform='scale\(.125\)'/>", first)
    assert max(map(int, re.findall(r"\d+", zero[1]))) / 8 == pytest.approx(74.2, abs=0.3), (
        "DejaVu's digits, in % of an em"
    )
    alone = drawing.FOR_A_PHONE.sub("", first)
    assert re.findall(r"viewBox='([^']*)'", alone) == views[:2] and alone.endswith("</svg></svg>")


@pytest.mark.parametrize("count, pixels", [(drawing.MANY, 0), (drawing.MANY + 1, 2)])
@pytest.mark.parametrize("draw", [lambda axes, x: axes.scatter(x, x), lambda axes, x: axes.plot(x, x, "o")])
def test_many_marks_are_drawn_as_pixels(draw, count, pixels):
    fig, axes = plt.subplots(layout="constrained")
    draw(axes, np.arange(count))
    assert drawing.svg(fig).count("<image ") == pixels


def test_photographs_keep_their_colours_at_night():
    fig, axes = plt.subplots(layout="constrained")
    assert "invert" in drawing.svg(fig)
    axes.imshow(np.zeros((2, 2, 3)))
    assert "invert" not in drawing.svg(fig)
