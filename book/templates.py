"""HTML from the templates in `book/_templates`; whatever is filled in is escaped."""

from pathlib import Path

import jinja2

from book.plan import duration

LOADER = jinja2.FileSystemLoader(Path(__file__).with_name("_templates"))
STRICT = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
ENVIRONMENT = jinja2.Environment(loader=LOADER, **STRICT)
ENVIRONMENT.filters["duration"] = duration


def render(name: str, **values: object) -> str:
    """The template of this name, filled in."""
    return ENVIRONMENT.get_template(f"{name}.html").render(values)
