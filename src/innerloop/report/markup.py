"""Table 1 as Markdown, LaTeX and HTML: ours with its standard error, a mark, and the published number."""

import html as escapes
import os
from itertools import groupby
from pathlib import Path

from innerloop.figures.grid import spelt
from innerloop.figures.table import Table
from innerloop.files import write_atomically
from innerloop.report.table1 import Cell, Row, Table1
from innerloop.report.verdict import printed

MARKS = {"better": "\N{CHECK MARK}", "tie": "\N{ALMOST EQUAL TO}", "worse": "\N{MULTIPLICATION X}"}
_LATEX_MARKS = {"better": r"\checkmark", "tie": r"\approx", "worse": r"\times"}
_LATEX_SIGNS = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"$\sim$",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$",
    "\N{ELEMENT OF}": r"$\in$",
}
_NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_ABOUT = (
    "Adjusted loss (half squared error): ours \N{PLUS-MINUS SIGN} standard error, then the published number. "
    "{better} better, {tie} a tie (within the published rounding plus two standard errors), {worse} worse."
)
STYLE = """\
.table1 { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.table1 caption { text-align: left; padding-bottom: 0.5em; }
.table1 th, .table1 td { padding: 0.15em 0.6em; text-align: right; white-space: nowrap; }
.table1 th:first-child { text-align: left; }
.table1 thead th, .table1 tbody { border-bottom: 1px solid #888; }
.table1 .better { background: #d5ebf7; font-weight: bold; }
.table1 .worse { background: #fbe3d0; text-decoration: underline dotted; }
.table1 .published { color: #444; font-weight: normal; font-size: 85%; display: inline-block; }
"""


def write_table1(
    results: Table, folder: str | os.PathLike, name: str = "table1", *, note: str = ""
) -> list[Path]:
    """Write the table as NAME.csv (all digits), NAME.md, NAME.tex and NAME.html into `folder`, made if it is not there.

    Returns:
        The four paths.

    Raises:
        ValueError: see `Table1.of`.
    """
    table = Table1.of(results, note)
    Path(folder).mkdir(parents=True, exist_ok=True)
    texts = {
        "csv": table.wide().write_csv(),
        "md": markdown(table),
        "tex": latex(table),
        "html": html_page(table),
    }
    paths = [Path(folder) / f"{name}.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_atomically(path, lambda file, text=text: file.write(text.encode()))
    return paths


def markdown(table: Table1) -> str:
    """The table in Markdown, one column a problem."""
    head = ["method", "layers", *(spelt(problem) for problem in table.problems)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in table.rows:
        cells = [_NONE if cell is None else _plain(cell) for cell in row.cells]
        lines.append([row.method, "" if row.layers is None else str(row.layers), *cells])
    rows = ["| " + " | ".join(_pipes(part) for part in line) + " |" for line in lines]
    return "\n".join([*rows, "", _caption(table, MARKS), ""])


def latex(table: Table1) -> str:
    r"""The table in LaTeX, a `tabular` of about 7.5 inches; needs `booktabs` and `amssymb`.

    Ours above, its standard error in parentheses in units of the last digit, 0.0445(3); on the line below the
    mark and the published number.
    """
    head = ["method", "L", *(spelt(problem) for problem in table.problems)]
    marks = {name: mark.lstrip("\\") for name, mark in _LATEX_MARKS.items()}
    lines = [
        r"% \usepackage{booktabs,amssymb}; for the caption:",
        "% " + _caption(table, marks).replace("\N{PLUS-MINUS SIGN} standard error", "(standard error)"),
        r"\begingroup\scriptsize\setlength{\tabcolsep}{2pt}",
        rf"\begin{{tabular}}{{lr{'r' * len(table.problems)}}}",
        r"\toprule",
        " & ".join(map(_latex, head)) + r" \\",
    ]
    for _, block in groupby(table.rows, lambda row: row.block):
        lines.append(r"\midrule")
        lines += [_latex_row(row) for row in block]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}\endgroup", ""])


def html(table: Table1) -> str:
    """The table as a `<table class="table1">`, whose cells have the class better, tie or worse."""
    head = "".join(f'<th scope="col">{escapes.escape(spelt(problem))}</th>' for problem in table.problems)
    parts = [
        '<table class="table1">',
        f"<caption>{escapes.escape(_caption(table, MARKS))}</caption>",
        f'<thead><tr><th scope="col">method</th><th scope="col">layers</th>{head}</tr></thead>',
    ]
    for _, block in groupby(table.rows, lambda row: row.block):
        parts += ["<tbody>", *(_html_row(row) for row in block), "</tbody>"]
    return "\n".join([*parts, "</table>"])


def html_page(table: Table1) -> str:
    """A page of its own with the table."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Table 1</title>\n'
        f"<style>\n{STYLE}</style></head>\n<body>\n{html(table)}\n</body>\n</html>\n"
    )


def _caption(table: Table1, marks: dict[str, str]) -> str:
    return " ".join([_ABOUT.format(**marks), *([table.note] if table.note else [])])


def _plain(cell: Cell) -> str:
    """Ours, a mark and the published number, in one line."""
    if cell.verdict is None or cell.published is None:
        return _ours(cell)
    return f"{_ours(cell)} {MARKS[cell.verdict]} {_number(cell.published)}"


def _ours(cell: Cell) -> str:
    value, error, power = printed(cell.value, cell.standard_error)
    text = f"{value} \N{PLUS-MINUS SIGN} {error}" if error else value
    if not power:
        return text
    return f"({text})e{_minus(power)}" if error else f"{text}e{_minus(power)}"


def _number(text: str) -> str:
    """A published number as it is printed, its exponent without zeros in front."""
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{_minus(str(int(exponent)))}" if e else text


def _minus(text: str) -> str:
    return text.replace("-", _MINUS)


def _pipes(text: str) -> str:
    return text.replace("\\", r"\\").replace("|", r"\|")


def _html_row(row: Row) -> str:
    head = f'<th scope="row">{escapes.escape(row.method)}</th><td>{"" if row.layers is None else row.layers}</td>'
    return f"<tr>{head}{''.join(_html_cell(cell) for cell in row.cells)}</tr>"


def _html_cell(cell: Cell | None) -> str:
    if cell is None:
        return f"<td>{_NONE}</td>"
    if cell.verdict is None or cell.published is None:
        return f"<td>{_ours(cell)}</td>"
    mark = f'<span role="img" aria-label="{cell.verdict}">{MARKS[cell.verdict]}</span>'
    published = f'<span class="published">{escapes.escape(_number(cell.published))}</span>'
    return f'<td class="{cell.verdict}">{_ours(cell)} {mark} {published}</td>'


def _latex_row(row: Row) -> str:
    """A line of ours, and one of the published numbers below it if there are any."""
    depth = "" if row.layers is None else str(row.layers)
    lines = [
        [_latex(row.method), depth, *("--" if cell is None else _latex_ours(cell) for cell in row.cells)]
    ]
    if any(cell and cell.published for cell in row.cells):
        lines.append(["", "", *("" if cell is None else _latex_theirs(cell) for cell in row.cells)])
    return " \\\\\n".join(" & ".join(line) for line in lines) + r" \\[1.5pt]"


def _latex_ours(cell: Cell) -> str:
    value, error, power = printed(cell.value, cell.standard_error)
    value = value.replace("\N{INFINITY}", r"\infty")
    return f"${value}{f'({_in_last_digits(error)})' if error else ''}{_latex_power(power)}$"


def _latex_theirs(cell: Cell) -> str:
    if cell.verdict is None or cell.published is None:
        return ""
    mantissa, _, exponent = cell.published.partition("e")
    return rf"${_LATEX_MARKS[cell.verdict]}\;{mantissa}{_latex_power(exponent)}$"


def _latex_power(power: str) -> str:
    return rf"\mathrm{{e}}{{{int(power)}}}" if power else ""


def _in_last_digits(error: str) -> str:
    """0.0003 -> 3, 0.00012 -> 12; 1.5 stays."""
    return error if float(error) >= 1 else error.replace(".", "").lstrip("0")


def _latex(text: str) -> str:
    return "".join(_LATEX_SIGNS.get(sign, sign) for sign in text)
