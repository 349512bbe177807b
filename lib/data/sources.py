"""Every data set of the book by its name, and where it is defined: add a maker of your own here.

A trial carries a `Source` (`lib.data.dataset`); this table finds those of the paper.
"""

from lib import check
from lib.data.dataset import Source
from lib.data.domains import BENCHMARKS, Domains
from lib.data.groups import SETS, Groups
from lib.data.pairs import PAIRED_SETS, Pair

_PAPER: tuple[Source, ...] = (
    *(Pair(name) for name in PAIRED_SETS),
    *(Groups(name) for name in SETS),
    *(Domains(benchmark, target) for benchmark in BENCHMARKS for target in BENCHMARKS[benchmark].domains),
)
SOURCES = {source.name: source for source in _PAPER}


def named(name: str) -> Source:
    """The source called `name`: "cifar-mnist", "celeba", "pacs without A", ... Raises ValueError on another name."""
    return SOURCES[check.choice("name", name, SOURCES)]
