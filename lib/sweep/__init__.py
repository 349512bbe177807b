"""The sweep engine: computes the trials that a store lacks, on this machine or on a Dask cluster.

    records = run(trials, store, jobs=2)

`python -m lib.sweep` is its command line.
"""

from lib.sweep.engine import SweepError, run
from lib.sweep.status import Status, status

__all__ = ["Status", "SweepError", "run", "status"]
