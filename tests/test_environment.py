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


def pins(lines: list[str]) -> dict[str, str]:
    """Versions by canonical name; every line must be `name==version`."""
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    return {re.sub(r"[-_.]+", "-", name).lower(): release for name, release in (line.split("==") for line in lines)}


def test_every_requirement_is_pinned_locked_and_installed_at_the_same_version():
    lock = pins([line for line in (ROOT / "requirements-lock.txt").read_text().splitlines() if line[0] != "#"])
    assert pins(REQUIREMENTS).items() <= lock.items(), "run `make lock` after changing pyproject.toml"
    assert {name: version(name).split("+")[0] for name in pins(REQUIREMENTS)} == pins(REQUIREMENTS)


def test_conda_installs_the_pins_of_pyproject_and_none_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, last = environment["dependencies"]
    assert conda == [f"python{PROJECT['project']['requires-python']}", "pip"]
    assert last == {"pip": ["--constraint requirements-lock.txt", "--editable .[dev]"]}
    script = (ROOT / "book" / "make" / "install.py").read_text(encoding="utf-8")
    assert '"--constraint", "requirements-lock.txt", "--editable", ".[dev]"' in script, "make installs something else"


def test_every_package_of_the_library_is_installed():
    rooms = [path.parent for room in ("book", "lib") for path in (ROOT / room).rglob("__init__.py")]
    found = {".".join(room.relative_to(ROOT).parts) for room in rooms}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_library_is_found_from_a_folder_that_holds_another_lib(tmp_path):
    (tmp_path / "lib").mkdir()
    code = "import lib.stats; print(lib.stats.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert Path(run.stdout.strip() or run.stderr) == ROOT / "lib" / "stats.py"


def test_library_imports_by_full_names_so_that_stale_chapters_are_found():
    for path in [*(ROOT / "lib").rglob("*.py"), *(ROOT / "book").rglob("*.py")]:
        assert not re.search(r"^\s*from \.", path.read_text(encoding="utf-8"), re.MULTILINE), path
