"""``python -m lib.data.sources``: what the data root holds, and how to get the rest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.data import domains, groups, sources
from lib.data.sources import DataError

MODULES = {
    name: module
    for module, names in ((sources, sources.SOURCES), (groups, groups.NAMES), (domains, domains.NAMES))
    for name in names
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: get what is asked for, list every set; 1 where something failed or is damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.data.sources", description="Which image data are there, whole, and how to get them."
    )
    parser.add_argument("--root", type=Path, help="else SAM_DATA_ROOT, else data/ in the repository")
    parser.add_argument(
        "--download",
        nargs="+",
        choices=MODULES,
        default=[],
        metavar="NAME",
        help=f"get these first: {', '.join(MODULES)}",
    )
    parser.add_argument(
        "--decode", action="store_true", help="open every image, which takes minutes for the large sets"
    )
    options = parser.parse_args(arguments)
    failed = False
    for name in options.download:
        if MODULES[name].state(name, options.root)[0] == "complete":
            continue
        try:
            MODULES[name].download(name, options.root)
        except DataError as error:
            print(error, file=sys.stderr)
            failed = True
    print(f"data root: {sources.data_root(options.root)}")
    for name, module in MODULES.items():
        more = {} if module is sources else {"decode": options.decode}  # those are always read whole
        kind, detail = module.state(name, options.root, **more)
        failed = failed or kind == "damaged"
        print(f"{name:16} {kind:9} {detail}")
    return int(failed)
