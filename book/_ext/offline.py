"""Sphinx extension: the pages bring their own MathJax and plotly and ask no other host for anything.

The files of packages are copied out of the installed ones at build time; none of them is kept in the repository.
The laboratory's are copied from beside its page.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

FILES = {  # package: (file in it, where it goes under _static)
    "mathjax": ("static/mathjax/es5/tex-svg-full.js", "mathjax/tex-svg-full.js"),
    "plotly": ("package_data/plotly.min.js", "plotly/plotly.min.js"),
}

LABORATORY = Path(__file__).resolve().parents[1] / "laboratory"
SCRIPTS = ("engine.js", "settings.js", "drawing.js", "page.js")  # in the order in which they are needed


def copy_scripts(app: Sphinx) -> None:
    """Copy the scripts into a folder beside the pages and name it as one more folder of static files."""
    folder = Path(app.outdir).parent / "scripts"
    for package, (source, target) in FILES.items():
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise RuntimeError(f"package {package} is not installed; `make book` installs it")
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(found.submodule_search_locations[0]) / source, folder / target)
    shutil.copytree(LABORATORY, folder / LABORATORY.name, dirs_exist_ok=True)
    app.config.html_static_path.append(str(folder))


def add_plotly(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document) -> None:
    """Load plotly on the pages that draw with it, before their first plot."""
    if "Plotly.newPlot" in context.get("body", ""):
        app.add_js_file("plotly/plotly.min.js", priority=100)


def add_laboratory(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document) -> None:
    """Load the laboratory on its page only."""
    if page == LABORATORY.name:
        app.add_css_file(f"{page}/style.css", priority=900)
        for name in SCRIPTS:
            app.add_js_file(f"{page}/{name}", priority=900, loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_scripts)
    app.connect("html-page-context", add_plotly)
    app.connect("html-page-context", add_laboratory)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
