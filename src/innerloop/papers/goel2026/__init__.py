"""Goel, Kohli, Somvanshi: In-Context Learning in Linear vs. Quadratic Attention Models (arXiv 2602.17171, 2026)."""

from innerloop.papers.goel2026.data import Sequences, anisotropic, pool
from innerloop.papers.goel2026.published import published
from innerloop.papers.goel2026.training import Program, Trained, grid, train

__all__ = ["Program", "Sequences", "Trained", "anisotropic", "grid", "pool", "published", "train"]
