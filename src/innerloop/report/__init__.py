"""A written account of a comparison: one self-contained HTML file and its pictures; and the paper's table with ours."""

from innerloop.report.markup import html, latex, markdown, write_table1
from innerloop.report.page import Comparison, Entry, write_report
from innerloop.report.table1 import Table1
from innerloop.report.verdict import verdict

__all__ = [
    "Comparison",
    "Entry",
    "Table1",
    "html",
    "latex",
    "markdown",
    "verdict",
    "write_report",
    "write_table1",
]
