"""What learns in context."""

from innerloop.models.linear import Diag, Full, GDPlusPlus, LinearTransformer

__all__ = ["Diag", "Full", "GDPlusPlus", "LinearTransformer"]
