"""SAM and LSAM (``sam``), what their second pass must not leave (``side_effects``), SAM's variants, and every method by
its name (``variants``)."""

from lib.optim.sam import LSAM, SAM, unit
from lib.optim.variants import ASAM, ESAM, GSAM, VARIANTS, WITHOUT_RADIUS, DecayedSAM, FriendlySAM, LookSAM

__all__ = ["ASAM", "DecayedSAM", "ESAM", "FriendlySAM", "GSAM", "LSAM", "LookSAM", "SAM"]
__all__ += ["VARIANTS", "WITHOUT_RADIUS", "unit"]
