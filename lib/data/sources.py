"""Every data set of the book by its name, and where it is defined: add a maker of your own here."""

from lib import check
from lib.data.dataset import Source
from lib.data.domains import BENCHMARKS, Domains
from lib.data.groups import SETS, Groups
from lib.data.pairs import PAIRED_SETS, Pair

_DOMAINS = (Domains(benchmark, target) for benchmark, letters in BENCHMARKS.items() for target in letters)
_PAPER: tuple[Source, ...] = (*map(Pair, PAIRED_SETS), *map(Groups, SETS), *_DOMAINS)
SOURCES = {source.name: source for source in _PAPER}


def named(name: str) -> Source:
    """The source called `name`: "cifar-mnist", "celeba", "pacs without A", ... Raises ValueError on another name."""
    return SOURCES[check.choice("name", name, SOURCES)]
