"""SGD's relatives SAM and LSAM (``sam``), and what their second pass must not leave (``side_effects``)."""

from lib.optim.sam import LSAM, SAM, unit

__all__ = ["LSAM", "SAM", "unit"]
