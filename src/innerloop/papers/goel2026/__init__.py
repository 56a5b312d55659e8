"""Goel, Kohli, Somvanshi: In-Context Learning in Linear vs. Quadratic Attention Models (arXiv 2602.17171, 2026)."""

from innerloop.papers.goel2026.data import Sequences, anisotropic, pool
from innerloop.papers.goel2026.matched import Arm, Contestants, Setting, Shift, choose, shifts, train_arm
from innerloop.papers.goel2026.published import published
from innerloop.papers.goel2026.training import Program, Trained, grid, train

__all__ = [
    "Arm",
    "Contestants",
    "Program",
    "Sequences",
    "Setting",
    "Shift",
    "Trained",
    "anisotropic",
    "choose",
    "grid",
    "pool",
    "published",
    "shifts",
    "train",
    "train_arm",
]
