"""A written account of a comparison: one self-contained HTML file, and its pictures beside it."""

from innerloop.report.page import Comparison, Entry, write_report

__all__ = ["Comparison", "Entry", "write_report"]
