"""SAM and LSAM (``sam``), what their second pass must not leave (``side_effects``), and SAM's variants by what they
change: the ascent, the descent, or how much of either is done (``esam``); all by name in ``variants``."""

from lib.optim.ascent import ASAM, DecayedSAM, FriendlySAM
from lib.optim.descent import GSAM, LookSAM
from lib.optim.esam import ESAM
from lib.optim.sam import LSAM, SAM, unit
from lib.optim.variants import VARIANTS, WITHOUT_RADIUS

__all__ = ["ASAM", "DecayedSAM", "ESAM", "FriendlySAM", "GSAM", "LSAM", "LookSAM", "SAM"]
__all__ += ["VARIANTS", "WITHOUT_RADIUS", "unit"]
