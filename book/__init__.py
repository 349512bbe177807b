"""The book: a module for each chapter, the claims, and what runs and builds the pages."""

import sys
from types import TracebackType


def _told(kind: type[BaseException], error: BaseException, where: TracebackType | None, others=sys.excepthook) -> None:
    """Ctrl-C, at whatever moment of a command, is one line and the exit status 130."""
    if not issubclass(kind, KeyboardInterrupt):
        return others(kind, error, where)
    print("interrupted; what was finished before stays", file=sys.stderr)
    raise SystemExit(130)


sys.excepthook = _told
