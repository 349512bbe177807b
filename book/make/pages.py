"""Builds the book: stale chapters first, then `_build/html`, replaced only by a build without a warning."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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


def build() -> bool:
    """Build the pages from the executed chapters and put them in place; False, and why, if that fails."""
    if MADE_FROM.exists() and MADE_FROM.read_text(errors="replace") == inputs() and (HTML / "index.html").exists():
        return True
    began = time.perf_counter()
    print("pages: building", flush=True)
    write_headline()
    write_scorecard()
    made_from = inputs()
    work = BUILD / "work"
    shutil.rmtree(work / "_build" / "html", ignore_errors=True)  # else a new stylesheet alone is not copied
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book"]
    command += ["-W", "-n", "--keep-going", "--path-output", work]
    log = BUILD / "pages.log"
    with log.open("w") as output:
        failed = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
    lines = re.sub(r"\x1b\[[\d;]*m", "", log.read_text()).replace(f"{ROOT}/", "").splitlines()
    problems = [line for line in lines if "WARNING" in line or "ERROR" in line]
    problems = problems or (lines[-20:] if failed else list(missing(work / "_build" / "html")))
    if failed or problems:
        problems.append(f"pages: not built, for the reasons above; {log.relative_to(ROOT)} has it all")
        print(*problems, sep="\n", file=sys.stderr)
        return False
    put_in_place(work / "_build" / "html", made_from)
    print(f"pages: done in {time.perf_counter() - began:.0f} s", flush=True)
    return True


def put_in_place(built: Path, made_from: str) -> None:
    """Copy `built` beside the pages, then exchange the two by renaming."""
    new, old = BUILD / "html.new", BUILD / "html.old"
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(built, new)
    (new / MADE_FROM.name).write_text(made_from)
    if HTML.exists():
        HTML.rename(old)
    new.rename(HTML)
    shutil.rmtree(old, ignore_errors=True)


def missing(html: Path) -> Iterator[str]:
    """A line for each page of the table of contents, and each figure of a chapter, that `html` lacks."""
    from bs4 import BeautifulSoup

    for name in contents():
        page, executed = html / f"{name}.html", BOOK / f"{name}.ipynb"
        if not page.exists():
            yield f"page {name} of book/_toc.yml was not built"
        if not (page.exists() and executed.exists()):
            continue
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        figures = dict(glued_figures(executed))
        if executed.stem == HEADLINE[0] and not figures.pop(HEADLINE[1], None):
            yield f"{name}: it glues no figure {HEADLINE[1]}, which README and landing page show"
        for figure in figures:
            drawn = soup.find("figure", id=figure)
            image = drawn and drawn.find("img")
            if drawn is None:
                yield f"{name}: figure {figure} is on no page (no {{glue:figure}} has `:name: {figure}`)"
            elif drawn.find("figcaption") is None:
                yield f"{name}: figure {figure} has no caption"
            elif image is None or not (page.parent / image["src"]).is_file():
                yield f"{name}: figure {figure} has no image file"
            elif not image.get("alt") or "_images/" in image["alt"]:
                yield f"{name}: figure {figure} has no `:alt:` text"


def contents() -> list[str]:
    """The names in the table of contents, the landing page first."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"]] + [entry["file"] for part in toc["parts"] for entry in part["chapters"]]


def glued_figures(executed: Path) -> list[tuple[str, str]]:
    """(name, SVG) of every figure that an executed chapter glued."""
    found = []
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            glued = output.get("metadata", {}).get("scrapbook")
            content = output["data"].get(glued["mime_prefix"] + "image/svg+xml") if glued else None
            if content is not None:
                found.append((glued["name"], "".join(content)))
    return found


def write_headline() -> None:
    """Store the headline figure of its chapter where README and landing page show it."""
    chapter, headline, path = HEADLINE
    executed = chapters.EXECUTED / f"{chapter}.ipynb"
    content = dict(glued_figures(executed)).get(headline) if executed.exists() else None
    if content and not (path.exists() and path.read_bytes() == content.encode()):
        chapters.write(path, content.encode())


def write_scorecard() -> None:
    """Store what the executed chapters recorded about the claims, where the pages read it."""
    from book import scorecard

    scorecard.write(scorecard.collect(chapters.EXECUTED))


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
