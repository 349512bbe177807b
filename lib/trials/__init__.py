"""The sweep engine: computes the trials that a store lacks, on this machine or on a Dask cluster.

records = run(trials, store, jobs=2)
"""

from lib.trials.engine import SweepError, run

__all__ = ["SweepError", "run"]
