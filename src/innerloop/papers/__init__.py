"""The two papers: their published numbers, and the commands that reproduce them."""

from typing import TYPE_CHECKING

from innerloop.lazy import lazily

if TYPE_CHECKING:
    from innerloop.papers import goel2026, vladymyrov2024

__all__ = ["goel2026", "vladymyrov2024"]

__getattr__ = lazily(
    __name__,
    {"innerloop.papers.goel2026": ("goel2026",), "innerloop.papers.vladymyrov2024": ("vladymyrov2024",)},
)


def __dir__() -> list[str]:
    return __all__
