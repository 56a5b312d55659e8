"""A written account of a comparison: one self-contained HTML file and its pictures; and the paper's table with ours."""

from innerloop.report.document import Grid, Picture, Section, number, write_document
from innerloop.report.markup import STYLE as TABLE1_STYLE
from innerloop.report.markup import html, latex, markdown, write_table1
from innerloop.report.page import Comparison, Entry, write_report
from innerloop.report.table1 import Table1
from innerloop.report.verdict import verdict

__all__ = [
    "TABLE1_STYLE",
    "Comparison",
    "Entry",
    "Grid",
    "Picture",
    "Section",
    "Table1",
    "html",
    "latex",
    "markdown",
    "number",
    "verdict",
    "write_document",
    "write_report",
    "write_table1",
]
