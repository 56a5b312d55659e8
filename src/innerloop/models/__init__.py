"""What learns in context."""

from innerloop.models.decoder import CausalDecoder
from innerloop.models.linear import Diag, Full, GDPlusPlus, LinearTransformer

__all__ = ["CausalDecoder", "Diag", "Full", "GDPlusPlus", "LinearTransformer"]
