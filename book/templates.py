"""HTML from the templates in `book/_templates`; whatever is filled in is escaped."""

from functools import cache
from pathlib import Path

import jinja2

from book.plan import duration


def render(name: str, **values: object) -> str:
    """The template of this name, filled in."""
    return _environment().get_template(f"{name}.html").render(values)


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("_templates"))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters["duration"] = duration
    return environment
