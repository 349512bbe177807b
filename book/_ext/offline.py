"""Sphinx extension: the laboratory's files go to its page, and what the theme writes is mended: pages are light, ask no
other host for anything, and everyone can read them."""

import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

LABORATORY = Path(__file__).resolve().parents[1] / "laboratory"
SCRIPTS = ("engine.js", "settings.js", "drawing.js", "page.js")  # in the order in which they are needed


def copy_scripts(app: Sphinx) -> None:
    """Copy the scripts into a folder beside the pages and name it as one more folder of static files."""
    folder = Path(app.outdir).parent / "scripts"
    shutil.copytree(LABORATORY, folder / LABORATORY.name, dirs_exist_ok=True)
    app.config.html_static_path.append(str(folder))


def add_laboratory(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document) -> None:
    """Load the laboratory on its page only."""
    if page == LABORATORY.name:
        app.add_css_file(f"{page}/style.css", priority=900)
        for name in SCRIPTS:
            app.add_js_file(f"{page}/{name}", priority=900, loading_method="defer")


ICONS = "vendor/fontawesome"  # in the folder of static files
ICON = re.compile(r"(?<=})((?:\.fa-[\w-]+:before,?)+)\{content:[^}]*\}")
# What the theme, Sphinx and pandas write, and what the finished pages have in its place.
MENDED = {
    # Font Awesome as a script of 1.5 MB, beside its fonts, and fonts of which no icon is shown
    rf"<(script|link)\b[^>]*{ICONS}[^>]*(?:\.js|fa-brands-400\.woff2|fa-regular-400\.woff2)[^>]*>(</script>)?": "",
    # for those who listen: no heading without words, lists of what they promise, a name for the sidebar
    r"<th([^>]*)>\s*(?:<p></p>)?\s*</th>": r"<td\1></td>",
    r' role="(list|doc-biblioentry)"(?= class="citation)': "",
    r'(class="citation"[^>]*) role="doc-biblioentry"': r"\1",
    r'<(div|dialog)([^>]*class="bd-sidebar-primary)': r'<\1 role="navigation" aria-label="Book"\2',
    # for those who use the keyboard: what scrolls sideways on a phone can be reached
    r'<table(?= (?:border="1" )?class="(?:table|dataframe))': '<table tabindex="0"',
}
# What a page keeps only where it shows it: sphinx-design's styles, and its tabs.
OPTIONAL = {
    'class="sd-': r"<link [^>]*sphinx-design\.min\.css[^>]*>",
    'class="sd-tab': r"<script [^>]*design-tabs\.js[^>]*></script>",
}


def finish(app: Sphinx, failed: Exception | None) -> None:
    """Mend the written pages, see MENDED, and leave of Font Awesome's styles those of the icons that are named."""
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
            for needed, loaded in OPTIONAL.items():
                text = text if needed in text else re.sub(loaded, "", text)
            path.write_text(text, encoding="utf-8")
    for path in (static / ICONS).rglob("*.min.css"):
        styles = path.read_text(encoding="utf-8")
        kept = ICON.sub(lambda icon: icon[0] if named & set(re.findall(r"fa-[\w-]+", icon[1])) else "", styles)
        path.write_text(kept, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_scripts)
    app.connect("html-page-context", add_laboratory)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
