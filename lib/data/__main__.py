"""``python -m lib.data``: what the data root holds, and how to get the rest."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.data import archives, cache, domains, groups, readers, root


def state(name: str, where: root.Root = None, decode: bool = False) -> tuple[str, str]:
    """(complete, reduced, damaged or missing; one line of detail) of the set of files `name` (one of root.LAYOUTS).

    Tables are read, folders listed and every file looked for; natural images are decoded where `decode` is true,
    and the others always.
    """
    room = readers if name in readers.SETS else groups if name in groups.SETS else domains
    try:
        if root.find(name, where) is None:
            published = name not in root.UNPUBLISHED
            return "missing", f"get it with: {root.command([name], where)}" if published else root.NO_ARCHIVE
        kind, detail, folder, files = room.describe(name, where)
        cache.fingerprint(name, folder, files)
        if decode:
            cache.check_images(name, folder, files)
    except (root.DataError, OSError) as error:
        return "damaged", str(error)
    return kind, detail


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
    failed = False
    for name in options.download:
        if state(name, options.root)[0] == "complete":
            continue
        try:
            if name in readers.SETS:
                readers.download(name, options.root)
            else:
                archives.get(name, options.root)
        except root.DataError as error:
            print(error, file=sys.stderr)
            failed = True
    print(f"data root: {root.data_root(options.root)}")
    if not root.data_root(options.root).is_dir():
        print(f"the data root {root.data_root(options.root)} must be a folder, and is none", file=sys.stderr)
        failed = True
    for name in root.LAYOUTS:
        kind, detail = state(name, options.root, options.decode)
        failed = failed or kind == "damaged"
        print(f"{name:16} {kind:9} {detail}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
