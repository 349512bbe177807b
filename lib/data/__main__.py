"""``python -m lib.data``: what the data root holds, and how to get the rest."""

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.data import archives, domains, groups, readers, root


def state(name: str, where: root.Root = None, decode: bool = False) -> tuple[str, str]:
    """(complete, reduced, damaged or missing; one line of detail) of the set of files `name` (one of root.LAYOUTS).

    Tables are read, folders listed and every file looked for; natural images are decoded where `decode` is true,
    and the others always.
    """
    room: Any = readers if name in readers.SETS else groups if name in groups.SETS else domains
    parts = [*domains.BENCHMARKS[name].values()] if room is domains else room.SPLITS
    try:
        with root.reading(name, where):
            if root.find(name, where) is None:
                return "missing", root.how([name], where)
            found = room.read(name, root=where)
            if room is readers:
                part, kinds = found.test, [found.kinds]
            else:
                found.check() if decode else found.stamp()
                part = found.table["domain" if room is domains else "split"]
                kinds = [found.table[column] for column in found.table if column != part.name]
    except root.DataError as error:
        return "damaged", str(error)
    counts = pd.crosstab(np.asarray(part, int), kinds).reindex(range(len(parts)), fill_value=0)
    of_parts, official = counts.sum(axis=1), room.COUNTS[name]
    detail = ", ".join(f"{count:,} {part}" for count, part in zip(of_parts, parts))
    complete = np.array_equal(counts if np.ndim(official) == 2 else of_parts, official)
    kind = "groups" if room is groups else "classes"
    return "complete" if complete else "reduced", f"{detail} images of {counts.shape[1]} {kind}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: get what is asked for, list every set; 1 where something failed or is damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.data", description="Which image data are there, whole, and how to get them."
    )
    names = f"get these first: {', '.join(root.LAYOUTS)}"
    parser.add_argument("--root", type=Path, help="else SAM_DATA_ROOT, else data/ in the repository")
    parser.add_argument("--download", nargs="+", choices=root.LAYOUTS, default=[], metavar="NAME", help=names)
    parser.add_argument("--decode", action="store_true", help="open every image, which takes minutes for large sets")
    options = parser.parse_args(arguments)
    there, failed = root.data_root(options.root), False
    socket.setdefaulttimeout(root.TIMEOUT)  # torchvision's downloads take none
    for name in options.download:
        try:
            if state(name, there)[0] != "complete":
                (readers.download if name in readers.SETS else archives.get)(name, options.root)
        except root.DataError as error:
            print(error, file=sys.stderr)
            failed = True
    print(f"data root: {there}")
    if not there.is_dir():
        print(f"the data root {there} must be a folder, and is none", file=sys.stderr)
        failed = True
    for name in root.LAYOUTS:
        kind, detail = state(name, options.root, options.decode)
        failed = failed or kind == "damaged"
        print(f"{name:16} {kind:9} {detail}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
