"""Builds the book: stale chapters first, then `_build/html`, replaced only by a build without a warning."""

import json
import re
import shutil
import subprocess
import sys
import time

import yaml

from book.make import chapters, fingerprint
from lib.files import locked

ROOT = fingerprint.ROOT
BOOK = ROOT / "book"
BUILD = ROOT / "_build"
HTML = BUILD / "html"
MADE_FROM = HTML / ".made_from"
HEADLINE = ("03_toy", "fig-headline", BOOK / "images" / "headline.svg")  # chapter, name, file for README


def inputs() -> str:
    """The hash of everything that the pages are made from, the library of the book's own code included."""
    files = [path for path in BOOK.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    code = [path.read_text(encoding="utf-8") for path in files if path.suffix == ".py"]
    files += [ROOT / "_config.yml", *fingerprint.library_files(code)]
    files += [*fingerprint.trial_files(), *(path for path in [fingerprint.CLAIMS] if path.exists())]
    return fingerprint.digest("\n".join([fingerprint.of_files(sorted(set(files))), *fingerprint.versions()]))


def are_fresh() -> bool:
    """Whether the pages are made from exactly what is here."""
    return (HTML / "index.html").exists() and MADE_FROM.exists() and MADE_FROM.read_text(errors="replace") == inputs()


def build() -> bool:
    """Build the pages from the executed chapters and put them in place; False, and why, if that fails."""
    if are_fresh():
        return True
    from book import scorecard  # here: where nothing is to be built, nothing heavy is imported

    began = time.perf_counter()
    print("pages: building", flush=True)
    write_headline()
    scorecard.write(scorecard.collect(chapters.EXECUTED), fingerprint.CLAIMS)
    made_from = inputs()
    built, old = BUILD / "work" / "_build" / "html", BUILD / "html.old"
    for folder in (built, old):  # else a new stylesheet alone is not copied
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book"]
    command += ["-W", "-n", "--keep-going", "--path-output", BUILD / "work"]
    log = BUILD / "pages.log"
    with log.open("w") as output:
        failed = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
    lines = re.sub(r"\x1b\[[\d;]*m", "", log.read_text()).replace(f"{ROOT}/", "").splitlines()
    problems = [line for line in lines if "WARNING" in line or "ERROR" in line]
    if failed or problems:
        problems = problems or lines[-20:]
        problems.append(f"pages: not built, for the reasons above; {log.relative_to(ROOT)} has it all")
        print(*problems, sep="\n", file=sys.stderr)
        return False
    (built / MADE_FROM.name).write_text(made_from)
    if HTML.exists():
        HTML.rename(old)
    built.rename(HTML)
    shutil.rmtree(old, ignore_errors=True)
    print(f"pages: done in {time.perf_counter() - began:.0f} s", flush=True)
    return True


def contents() -> list[str]:
    """The names in the table of contents, the landing page first."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"]] + [entry["file"] for part in toc["parts"] for entry in part["chapters"]]


def write_headline() -> None:
    """Store the headline figure of its chapter where README and landing page show it."""
    chapter, headline, path = HEADLINE
    executed = chapters.EXECUTED / f"{chapter}.ipynb"
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"] if executed.exists() else []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        if (glued := output.get("metadata", {}).get("scrapbook", {})).get("name") == headline:
            content = "".join(output["data"][glued["mime_prefix"] + "image/svg+xml"]).encode()
            if not (path.exists() and path.read_bytes() == content):
                chapters.write(path, content)


def main() -> int:
    BUILD.mkdir(exist_ok=True)
    try:
        with locked(BUILD / "book"):  # two builds at once would write the same files
            if not chapters.run_stale():
                print("book: a chapter failed; the pages stay as they were", file=sys.stderr)
                return 1
            if not build():
                return 1
    except (ValueError, OSError) as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    print(f"The book is at {HTML / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
