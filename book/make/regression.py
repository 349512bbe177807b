"""Runs the tests and compares the notebooks' key numbers (nbval), where something changed since they passed.

python -m book.make.regression [--again]      --again: run everything
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from book.make import chapters, fingerprint, pages

ROOT = fingerprint.ROOT
PASSED = ROOT / "_build" / "passed.json"
FOLDERS = ("lib", "tests", "notebooks", "book", "benchmarks", "results", ".ci")


def of_tests() -> str:
    """The hash of everything that the tests see, the pages and the place of the image data included."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.suffix != ".egg-info"]
    files = [path for path in files if path.is_file() and "__pycache__" not in path.parts]
    shown = pages.MADE_FROM.read_text() if pages.MADE_FROM.exists() else "no pages"
    seen = [fingerprint.of_files(files), shown, *fingerprint.versions(), os.environ.get("SAM_DATA_ROOT", "")]
    return fingerprint.digest("\n".join(seen))


def of_notebook(notebook: Path) -> str:
    """The hash of a default run of `notebook` and of the outputs that it is compared with."""
    return fingerprint.digest(fingerprint.of_run(notebook, {}, ["/"]) + fingerprint.digest(notebook.read_bytes()))


def pytest(*arguments: str | Path) -> bool:
    """Run pytest on the cores there are, each file on one of them; False where a test failed."""
    cores = os.cpu_count() or 1
    workers = min(cores, 4)
    environment = {"OMP_NUM_THREADS": str(max(1, cores // workers)), **os.environ}
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadfile", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--again", action="store_true", help="run everything, also what passed as it is")
    again = options.parse_args().again
    try:
        passed = {} if again else dict(json.loads(PASSED.read_text()))
    except (OSError, ValueError, TypeError):  # not there, or damaged
        passed = {}
    now = {"tests": of_tests()} | {f"notebooks/{path.name}": of_notebook(path) for path in fingerprint.chapters()}
    changed = [name for name, made_from in now.items() if passed.get(name) != made_from]
    if not changed:
        print("tests and notebooks: nothing changed since they passed")
        return 0
    rounding = f"--nbval-sanitize-with={Path(__file__).with_name('rounding.cfg')}"
    good = pytest("--nbval-lax", "--nbval-current-env", rounding, *changed)
    PASSED.parent.mkdir(exist_ok=True)
    chapters.write(PASSED, json.dumps(passed | {name: now[name] if good else None for name in changed}).encode())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
