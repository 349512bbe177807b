"""Sphinx extension: what the theme writes is mended: pages are light, ask no other host for anything, and everyone can
read them."""

import re
from functools import cache
from pathlib import Path

from fontTools import subset
from sphinx.application import Sphinx

from book.drawing import FOR_A_PHONE

ICONS = "vendor/fontawesome"  # in the folder of static files
ICON = re.compile(r"(?<=})((?:\.fa-[\w-]+:before,?)+)\{content:[^}]*\}")
# What the theme, Sphinx and pandas write, and what the finished pages have in its place.
MENDED = {
    # Font Awesome as a script of 1.5 MB, and its whole fonts
    rf"<(script|link)\b[^>]*{ICONS}[^>]*(?:\.js|\.woff2)[^>]*>(</script>)?": "",
    # for those who listen: no heading without words, lists of what they promise, a name for the sidebar
    r"<th([^>]*)>\s*(?:<p></p>)?\s*</th>": r"<td\1></td>",
    r' role="(list|doc-biblioentry)"(?= class="citation)': "",
    r'(class="citation"[^>]*) role="doc-biblioentry"': r"\1",
    r'<(div|dialog)([^>]*class="bd-sidebar-primary)': r'<\1 role="navigation" aria-label="Book"\2',
    # for those who look for a chapter: the sidebar has its name, the page what the chapter asks
    r'(<li class="toctree-l1[^>]*><a[^>]*>[^<:]*):[^<]*(?=</a>)': r"\1",
    # for those who use the keyboard: what scrolls sideways on a phone can be reached
    r'<table(?= (?:border="1" )?class="(?:table|dataframe))': '<table tabindex="0"',
}
PICTURE = re.compile(r'<img[^>]* src="([^"]*\.svg)"[^>]*?/?>')
LAYOUT = re.compile(r"<svg (?:y='\d+' )?width='(\d+)' height='(\d+)'.*?</svg>")
PHONE = "-phone"  # at the end of a file's name
LETTERS = re.compile(r"scale\(([\d.]+) -")
# What a page keeps only where it shows it: sphinx-design's styles, and its tabs.
OPTIONAL = {
    'class="sd-': r"<link [^>]*sphinx-design\.min\.css[^>]*>",
    'class="sd-tab': r"<script [^>]*design-tabs\.js[^>]*></script>",
}


@cache
def layouts(drawn: Path) -> list[tuple[str, str]]:
    """Width and height of a figure's layouts, for a desk and, unless it has none, for a phone, which gets a file."""
    text = drawn.read_text(encoding="utf-8")
    found = list(LAYOUT.finditer(text))
    if len(found) > 1:
        width, height = found[1].groups()
        own = FOR_A_PHONE.search(text)[0].replace("<svg y", "<svg data-y")
        phone = text[: found[0].start()] + own + "</svg>"
        phone = re.sub(r"viewBox='[^']*'", f"viewBox='0 0 {width} {height}'", phone, count=1)
        drawn.with_stem(drawn.stem + PHONE).write_text(phone, encoding="utf-8")
        drawn.write_text(FOR_A_PHONE.sub("", text), encoding="utf-8")
    return [layout.groups() for layout in found]


def picture(image: re.Match, folder: Path) -> str:
    """A figure for both widths: on a phone its layout for one, or else it scrolls sideways at readable letters."""
    drawn = folder / image[1]
    (width, height), *phone = layouts(drawn)
    size = f'class="dark-light" width="{width}" height="{height}"'
    if not phone:
        letters = map(float, LETTERS.findall(drawn.read_text(encoding="utf-8")))
        shown = f'<img {size} style="--least: {0.11 * int(width) / min(letters, default=1):.0f}px"'
        return f'<div class="sideways" tabindex="0">{image[0].replace("<img", shown)}</div>'
    across, down = phone[0]
    shown = f'<img {size} style="--phone: {across}/{down}"'
    own = f'srcset="{image[1][:-4]}{PHONE}.svg" width="{across}" height="{down}"'
    return f'<picture><source media="(max-width: 600px)" {own}>{image[0].replace("<img", shown)}</picture>'


def finish(app: Sphinx, failed: Exception | None) -> None:
    """Mend the written pages, see MENDED, and leave of Font Awesome the icons that are named."""
    if failed:
        return
    static, named = Path(app.outdir) / "_static", set()
    for path in [*Path(app.outdir).rglob("*.html"), *static.rglob("*.js")]:
        if ICONS in path.as_posix():
            continue
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r"fa-[\w-]+", text))
        if path.suffix == ".html":
            for written, mended in MENDED.items():
                text = re.sub(written, mended, text)
            if "<figure" in text:
                text = PICTURE.sub(lambda image, folder=path.parent: picture(image, folder.resolve()), text)
            for needed, loaded in OPTIONAL.items():
                text = text if needed in text else re.sub(loaded, "", text)
            path.write_text(text, encoding="utf-8")
    for path in (static / ICONS).rglob("*.min.css"):
        styles = path.read_text(encoding="utf-8")
        kept = ICON.sub(lambda icon: icon[0] if named & set(re.findall(r"fa-[\w-]+", icon[1])) else "", styles)
        path.write_text(re.sub(r'url\(\S*?\.woff2\) format\("woff2"\),', "", kept), encoding="utf-8")
    shown = "".join(path.read_text(encoding="utf-8") for path in static.rglob("*.css"))
    for path in (static / ICONS).rglob("*.ttf"):
        options = subset.Options()
        font, smaller = subset.load_font(path, options), subset.Subsetter(options)
        smaller.populate(unicodes=[int(code, 16) for code in re.findall(r'"\\(f[0-9a-f]{3})"', shown)])
        smaller.subset(font)
        subset.save_font(font, path, options)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
