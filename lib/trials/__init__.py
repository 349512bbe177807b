"""The sweep engine: computes the trials that a store lacks, on this machine or on a Dask cluster.

    records = run(trials, store, jobs=2)

`python -m book.sweep` is its command line.
"""

from lib.trials.engine import SweepError, run
from lib.trials.plan import Status, status

__all__ = ["Status", "SweepError", "run", "status"]
