"""Builds the environment beside the one that there is and puts it in place when it is whole; called by install.sh.

    python book/make/install.py VENV ROOT

Standard library only: it runs before anything is installed.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

UNREACHABLE = "ConnectionError|NameResolutionError|ConnectTimeout|Connection broken|from versions: none"


def wanted(root: Path) -> str:
    """A hash of what decides the environment: requirements, lock, interpreter and place; no comment, and no time."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    lock = (root / "requirements-lock.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}
    parts = [project["project"].get("dependencies"), project["project"].get("optional-dependencies")]
    parts += [project.get("build-system"), project.get("tool", {}).get("setuptools"), pins]
    place = [sys.version, os.path.realpath(sys.base_prefix), str(root), os.environ.get("TORCH_INDEX", "")]
    return hashlib.sha256(json.dumps([parts, place]).encode()).hexdigest()[:12]


def stop(line: str) -> None:
    sys.exit(f"install: {line}")


def build(folder: Path, log: Path) -> None:
    """Make the environment `folder`; ends with one line where that fails."""
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", folder], capture_output=True, text=True)
    if made.returncode:
        stop(f"could not make {folder}: {' '.join((made.stdout + made.stderr).split())[-200:]}")
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    pip += ["--constraint", "requirements-lock.txt", "--editable", ".[dev]"]
    if index := os.environ.get("TORCH_INDEX"):
        pip += ["--extra-index-url", index]
    with log.open("w") as errors:
        failed = subprocess.run(pip, stderr=errors).returncode
    if failed:
        text = log.read_text()
        if re.search(UNREACHABLE, text):
            stop(f"the package index cannot be reached; a new environment needs the network (details: {log})")
        said = [line.strip() for line in text.splitlines() if re.match(r" *(ERROR|error)", line)]
        stop(f"pip failed: {(said or ['no reason given'])[-1]} (details: {log})")


def main() -> None:
    link, root = Path(sys.argv[1]), Path(sys.argv[2])
    name = wanted(root)
    mark = link / "installed"
    if mark.exists() and mark.read_text() == name:
        return
    with open(link.with_name(f"{link.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("install: waiting for another installation here", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            stop(f"the file system of {link.resolve().parent} allows no locks (flock): {error}")
        if mark.exists() and mark.read_text() == name:  # made by the other one
            return
        folder, log = link.with_name(f"{link.name}.{name}"), link.with_name(f"{link.name}.log")
        beside = f" beside {link}, which stays until then," if link.exists() else ""
        print(f"install: making an environment{beside} in some minutes, of 7 GB with a GPU build of torch", flush=True)
        try:
            build(folder, log)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        (folder / "installed").write_text(name)
        log.unlink(missing_ok=True)
        if link.exists() and not link.is_symlink():  # made before this was a link
            link.rename(link.with_name(f"{link.name}.before"))
        turned = link.with_name(f"{link.name}.link")
        turned.unlink(missing_ok=True)
        turned.symlink_to(folder.name)
        os.replace(turned, link)
        for other in link.parent.glob(f"{link.name}.*"):
            if other.is_dir() and other != folder:
                shutil.rmtree(other, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("install: interrupted; what there was stays")
