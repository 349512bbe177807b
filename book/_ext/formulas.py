"""Sphinx extension: formulas are drawn as the pages are built, by MathJax in an embedded JavaScript engine.

A formula is a picture whose glyphs stand once a page, with MathML beside it for those who listen. So no page loads a
script for them, and a mistake in a formula is a warning of the build.
"""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number, wrap_displaymath
from sphinx.writers.html5 import HTML5Translator

PARTS = ("startup", "core", "adaptors/liteDOM", "input/tex-full", "output/svg", "output/svg/fonts/tex")
DRAW = """
const parts = MathJax._, adaptor = parts.adaptors.liteAdaptor.liteAdaptor();
parts.handlers.html_ts.RegisterHTMLHandler(adaptor);
const input = new parts.input.tex_ts.TeX({packages: ["base", "ams", "newcommand", "boldsymbol"]});
const output = new parts.output.svg_ts.SVG({fontCache: "global", font: new parts.output.svg.fonts.tex_ts.TeXFont()});
const page = parts.mathjax.mathjax.document("", {InputJax: input, OutputJax: output});
const serial = new parts.core.MmlTree.SerializedMmlVisitor.SerializedMmlVisitor();
const whole = {em: 16, ex: 8, containerWidth: 1e5};
function draw(tex, display) {
  const tree = page.convert(tex, {display, ...whole, end: parts.core.MathItem.STATE.CONVERT});
  const picture = adaptor.firstChild(page.convert(tex, {display, ...whole}));
  return JSON.stringify([adaptor.outerHTML(picture), serial.visitTree(tree)]);
}
function glyphs() { return adaptor.outerHTML(output.fontCache.getCache()); }
"""
GLYPH = re.compile(r'<path id="([^"]+)" d="[^"]*">(?:</path>)?')
USED = re.compile(r'<use href="#(MJX-[^"]+)"')


@cache
def engine():
    """The JavaScript engine with MathJax in it; one a build."""
    from py_mini_racer import MiniRacer

    folder = files("mathjax") / "static" / "mathjax" / "es5"
    context = MiniRacer()
    context.eval("globalThis.MathJax = {}")
    for part in PARTS:
        context.eval((folder / f"{part}.js").read_text(encoding="utf-8"))
    context.eval(DRAW)
    return context


@cache
def drawn(tex: str, display: bool) -> str:
    """The formula as HTML. Raises ValueError where MathJax cannot read it."""
    picture, words = json.loads(engine().eval(f"draw({json.dumps(tex)}, {json.dumps(display)})"))
    if wrong := re.search(r'data-mjx-error="([^"]*)"', picture + words):
        raise ValueError(f"{wrong[1]} in the formula {tex}")
    picture = re.sub(r' (data-[a-z-]+|role|xmlns(:xlink)?)="[^"]*"', "", picture.replace("xlink:href", "href"))
    words = re.sub(r">\s+<", "><", re.sub(r' data-[a-z-]+="[^"]*"', "", words))
    picture = picture.replace("<svg ", '<svg aria-hidden="true" ', 1)
    reached = ' tabindex="0"' if display else ""  # it may scroll sideways
    return f'<span class="formula"{reached}>{picture}<span class="in-words">{words}</span></span>'


def _or_warning(node: nodes.Element, tex: str, display: bool) -> str:
    try:
        return drawn(tex, display)
    except ValueError as error:
        logging.getLogger(__name__).warning(str(error), location=node)
        return ""


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    start = translator.starttag(node, "span", "", CLASS="math notranslate nohighlight")
    translator.body.append(start + _or_warning(node, node.astext(), False) + "</span>")
    raise nodes.SkipNode


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, _("Link to this equation"))
        translator.body.append("</span>")
    tex = node.astext() if node["nowrap"] else wrap_displaymath(node.astext(), "", False)
    translator.body.append(_or_warning(node, tex, True) + "</div>\n")
    raise nodes.SkipNode


def add_glyphs(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document) -> None:
    """Put the glyphs that a page's formulas use at its start, once."""
    if used := sorted(set(USED.findall(context.get("body", "") + context.get("toc", "")))):
        known = {glyph[1]: glyph[0] for glyph in GLYPH.finditer(engine().eval("glyphs()"))}
        glyphs = "".join(known[name] for name in used)
        shown = f'<svg class="glyphs" aria-hidden="true" width="0" height="0"><defs>{glyphs}</defs></svg>'
        context["body"] = shown + context["body"]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("drawn", (visit_inline, None), (visit_block, None))
    app.connect("html-page-context", add_glyphs)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
