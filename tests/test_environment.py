"""The ways to install this book give the same versions, and the package is found wherever a notebook runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENTS = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    """Versions by canonical name; every line must be `name==version`."""
    unpinned = [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not unpinned
    return {canonical(name): release for name, release in (line.split("==") for line in lines)}


LOCK = pins([line for line in (ROOT / "requirements-lock.txt").read_text().splitlines() if line[0] != "#"])


def test_every_requirement_is_pinned_and_locked_at_the_same_version():
    wanted = pins(REQUIREMENTS)
    assert wanted.items() <= LOCK.items(), "run `make lock` after changing pyproject.toml"


def test_conda_installs_the_pins_of_pyproject_and_none_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, last = environment["dependencies"]
    assert conda == [f"python{PROJECT['project']['requires-python']}", "pip"]
    assert last == {"pip": ["--constraint requirements-lock.txt", "--editable .[dev]"]}
    script = (ROOT / "book" / "make" / "install.py").read_text(encoding="utf-8")
    assert '"--constraint", "requirements-lock.txt", "--editable", ".[dev]"' in script, "make installs something else"


def test_installed_versions_are_the_pinned_ones():
    assert {name: version(name).split("+")[0] for name in pins(REQUIREMENTS)} == pins(REQUIREMENTS)


def test_every_package_of_the_library_is_installed():
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in ("book", "lib")
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_library_is_found_from_a_folder_that_holds_another_lib(tmp_path):
    (tmp_path / "lib").mkdir()
    code = "import lib.stats; print(lib.stats.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert Path(run.stdout.strip() or run.stderr) == ROOT / "lib" / "stats.py"


def test_library_imports_by_full_names_so_that_stale_chapters_are_found():
    for path in [*(ROOT / "lib").rglob("*.py"), *(ROOT / "book").rglob("*.py")]:
        assert not re.search(r"^\s*from \.", path.read_text(encoding="utf-8"), re.MULTILINE), path
