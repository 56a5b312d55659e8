"""Table 1 has every number in its place, says what rounding lets it say, and is valid in every language."""

import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.papers.vladymyrov2024 import printed_table_1, table_1
from innerloop.report import Table1, html, latex, markdown, verdict, write_table1
from innerloop.report.verdict import printed, rounding

PROBLEMS = list(printed_table_1()["problem"].unique(maintain_order=True))
COLUMNS = ["problem", "method", "layers", "value", "standard_error", "published"]


def results(factor: float = 1.0) -> pl.DataFrame:
    """The paper's numbers times a factor as ours, rows shuffled; what it lacks, and the floor."""
    value = factor * pl.col("published").cast(pl.Float64)
    ours = printed_table_1().with_columns(value=value, standard_error=0.001 * value)
    rows = [
        (problem, method, layers, 0.001 * (1 + a) * (1 + b), 1e-5, None)
        for a, problem in enumerate(PROBLEMS)
        for b, (method, layers) in enumerate(
            [("bayes", None), ("full two heads", 4), ("diag free", 7), ("diag free", 2), ("floor", None)]
        )
    ]
    extra = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    first = pl.DataFrame({"problem": PROBLEMS})  # columns in the paper's order
    mixed = pl.concat([ours.select(COLUMNS), extra], how="vertical_relaxed").sample(
        fraction=1, shuffle=True, seed=3
    )
    return first.join(mixed, on="problem", maintain_order="left_right")


# Verdicts.


@pytest.mark.parametrize(
    ("value", "error", "published", "expected"),
    [
        (0.0475, None, "0.047", "tie"),  # half a unit of the last place
        (0.0465, None, "0.047", "tie"),
        (0.04751, None, "0.047", "worse"),
        (0.04649, None, "0.047", "better"),
        (0.04649, 5e-6, "0.047", "tie"),  # and two standard errors
        (0.04649, 4.9e-6, "0.047", "better"),
        (0.0404, 0.0, "0.040", "tie"),
        (0.0404, 0.0, "0.04", "tie"),
        (0.0406, 0.0, "0.040", "worse"),
        (0.0406, 0.0, "0.04", "tie"),  # fewer digits say less
        (2.504e-12, None, "2.50e-12", "tie"),
        (2.506e-12, None, "2.50e-12", "worse"),
        (2.49e-12, None, "2.50e-12", "better"),
        (1e-29, None, "0", "tie"),
        (1e-9, None, "0", "worse"),
        (0.0475, None, 0.047, "worse"),  # a number is exact
        (float("inf"), None, "0.047", "worse"),
    ],
)
def test_verdicts_at_their_boundaries(value, error, published, expected):
    assert verdict(value, error, published) == expected


def test_rounding_is_half_a_unit_of_the_last_place():
    for text, half in {"0.040": 5e-4, "1.639": 5e-4, "9.91e-05": 5e-8, "12": 0.5, "2.50e-12": 5e-15}.items():
        assert rounding(text) == pytest.approx(half, rel=1e-12)
    for text in ["", "about 2", "nan", "inf"]:
        with pytest.raises(ValueError, match="published number must be finite and printed in full"):
            rounding(text)
    with pytest.raises(ValueError, match="value must be a number, got nan"):
        verdict(float("nan"), None, "0.040")


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.04447, 0.0003, ("0.0445", "0.0003", "")),
        (0.04447, 0.000123, ("0.04447", "0.00012", "")),
        (0.0444, 0.00098, ("0.0444", "0.0010", "")),
        (1.6393, 0.02, ("1.64", "0.02", "")),
        (2.504e-12, 1.2e-13, ("2.50", "0.12", "-12")),
        (2.5e-12, 3e-11, ("0", "3", "-11")),  # an error larger than the value
        (2.504e-12, None, ("2.50", "", "-12")),
        (0.0385, None, ("0.0385", "", "")),
        (123.4, 15.0, ("123", "15", "")),
        (0.0, None, ("0", "", "")),
        (float("inf"), None, ("∞", "", "")),
    ],
)
def test_value_and_error_end_at_the_same_digit(value, error, expected):
    assert printed(value, error) == expected


@given(st.floats(1e-15, 1e3), st.floats(1e-4, 0.5))
def test_printed_numbers_are_the_numbers(value, relative):
    text, error, power = printed(value, relative * value)
    scale = 10.0 ** int(power or 0)
    # The error's last digit is at most a fifth of it, or its half when it is printed as 1.0 to 1.9.
    assert abs(float(text) * scale - value) <= 0.5 * relative * value
    assert float(error) * scale == pytest.approx(relative * value, rel=0.25)
    assert len(text.partition(".")[2]) == len(error.partition(".")[2])


# The layout.


def test_rows_are_in_the_papers_order_and_the_floor_is_last():
    rows = [(row.method, row.layers) for row in Table1.of(results()).rows]
    models = ["GD++", "DIAG (one head)", "FULL"]
    assert rows[:21] == [(model, layers) for layers in range(1, 8) for model in models]
    assert rows[21:24] == [("ConstRR", None), ("AdaRR", None), ("TunedRR", None)]
    assert set(rows[24:27]) == {("DIAG (free)", 2), ("DIAG (free)", 7), ("FULL (two heads)", 4)}
    assert rows.index(("DIAG (free)", 2)) == rows.index(("DIAG (free)", 7)) - 1
    assert rows[27:] == [("Bayes-optimal", None), ("Bayes floor", None)]
    assert [row.block for row in Table1.of(results()).rows] == [0] * 21 + [1] * 3 + [2] * 4 + [3]


def test_every_number_is_in_its_place():
    table = Table1.of(results())
    assert list(table.problems) == PROBLEMS
    found = {(row.method, row.layers, problem): cell for row, problem, cell in table.cells()}
    assert len(found) == len(results()) == 290
    labels = {"gd++": "GD++", "diag": "DIAG (one head)", "full": "FULL", "constrr": "ConstRR"}
    labels |= {"adarr": "AdaRR", "tunedrr": "TunedRR"}
    for method, layers, problem, value in table_1().iter_rows():
        cell = found[labels[method], layers, problem]
        assert cell.value == value
        assert float(cell.published) == value
    assert table.counts() == {"better": 0, "tie": 240, "worse": 0}


def test_numbers_survive_the_csv(tmp_path):
    """To the last bit, with the paper's digits and verdicts beside them."""
    texts = ["2.50e-12", "0.002", "0.014", "0.027", "0.040", "0.047", "0.052", "0.059", "0.018", "0.046"]
    path = write_table1(results(0.9), tmp_path)[0]
    wide = pl.read_csv(path, schema_overrides={f"{problem} published": pl.String for problem in PROBLEMS})
    assert wide.columns[:6] == [
        "method",
        "layers",
        *(PROBLEMS[0] + end for end in ["", " s.e.", " published", " verdict"]),
    ]
    row = wide.row(by_predicate=(pl.col("method") == "DIAG (one head)") & (pl.col("layers") == 7), named=True)
    for problem, text in zip(PROBLEMS, texts, strict=True):
        assert row[problem] == 0.9 * float(text)
        assert row[f"{problem} s.e."] == 0.001 * (0.9 * float(text))
        assert row[f"{problem} published"] == text
        assert row[f"{problem} verdict"] == verdict(0.9 * float(text), 0.0009 * float(text), text)
    floor = wide[-1].row(0, named=True)
    assert floor["method"] == "Bayes floor"
    assert floor[f"{PROBLEMS[0]} verdict"] is None


def test_missing_and_infinite_cells():
    table = results().filter((pl.col("method") != "full") | (pl.col("problem") != PROBLEMS[3]))
    bad = (pl.col("method") == "diag") & (pl.col("layers") == 5)
    table = table.with_columns(
        value=pl.when(bad).then(float("inf")).otherwise("value"),
        standard_error=pl.when(bad).then(float("nan")).otherwise("standard_error"),
    )
    rows = {(row.method, row.layers): row.cells for row in Table1.of(table).rows}
    assert rows["FULL", 7][3] is None
    assert [cell.verdict for cell in rows["DIAG (one head)", 5]] == ["worse"] * 10
    line = next(
        line for line in markdown(Table1.of(table)).splitlines() if line.startswith("| DIAG (one head) | 5 |")
    )
    assert line.count("∞ ✕") == 10
    line = next(line for line in markdown(Table1.of(table)).splitlines() if line.startswith("| FULL | 7 |"))
    assert line.count("–") == 1


def test_wrong_results_are_named():
    with pytest.raises(ValueError, match="column 'published' is missing"):
        Table1.of(results().drop("published"))
    with pytest.raises(ValueError, match="column 'value' must be finite, got nan in row 0"):
        Table1.of(results().with_columns(value=float("nan")))
    with pytest.raises(ValueError, match="one row whose method is 'floor', got 0"):
        Table1.of(results().filter(pl.col("method") != "floor"))
    twice = pl.concat(
        [results(), results().filter(method="diag").with_columns(method=pl.lit("DIAG one head"))]
    )
    with pytest.raises(ValueError, match="for the same"):
        Table1.of(twice)


# The languages.


def odd() -> Table1:
    """Names with every sign that some language gives a meaning to."""
    rows = [
        ("a_b & <i>", r"mine | 50% #1 \x {y} ~^$", 2, 0.041, 0.0003, "0.040"),
        ("a_b & <i>", "floor", None, 0.03, None, None),
    ]
    return Table1.of(pl.DataFrame(rows, schema=COLUMNS, orient="row"))


def test_markdown_has_a_column_a_problem_and_a_row_a_predictor():
    lines = [line for line in markdown(Table1.of(results())).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 29
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {2 + len(PROBLEMS) + 1}
    assert lines[0].split(" | ")[2:4] == ["σ = 0", "σ ~ U(0, 1)"]
    assert {
        len(re.findall(r"(?<!\\)\|", line)) for line in markdown(odd()).splitlines() if line[:1] == "|"
    } == {4}


def test_the_mark_stands_between_ours_and_the_published_number():
    for factor, mark in [(0.9, "✓"), (1.0, "≈"), (1.1, "✕")]:
        table = Table1.of(results(factor))
        line = next(line for line in markdown(table).splitlines() if line.startswith("| GD++ | 1 |"))
        assert re.fullmatch(rf"\d\.\d+ ± \d\.\d+ {mark} 1\.768", line.split(" | ")[2])
    line = next(
        line for line in markdown(Table1.of(results())).splitlines() if line.startswith("| FULL | 6 |")
    )
    assert line.split(" | ")[2] == "(2.710 ± 0.003)e−10 ≈ 2.71e−10"


class _Cells(HTMLParser):
    """Rows of cells: class and text."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: list[list[list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([dict(attrs).get("class", ""), ""])

    def handle_data(self, data):
        if self.rows:
            self.rows[-1][-1][1] += data.strip("\n")


def test_html_marks_every_cell_by_class_and_sign():
    text = html(Table1.of(results(0.99)))
    ElementTree.fromstring(text)  # well-formed
    rows = _Cells(text).rows
    assert len(rows) == 30
    assert {len(row) for row in rows} == {2 + len(PROBLEMS)}
    table = Table1.of(results(0.99))
    for row, cells in zip(table.rows, rows[1:], strict=True):
        for cell, (found, shown) in zip(row.cells, cells[2:], strict=True):
            assert found == (cell.verdict or "")
            assert ("✓" in shown, "≈" in shown, "✕" in shown) == tuple(
                cell.verdict == name for name in ["better", "tie", "worse"]
            )


def test_html_escapes():
    text = html(odd())
    ElementTree.fromstring(text)
    rows = _Cells(text).rows
    assert rows[0][2][1] == "a_b & <i>"
    assert rows[1][0][1] == r"mine | 50% #1 \x {y} ~^$"


def unescaped(sign: str, text: str) -> int:
    return len(re.findall(rf"(?<!\\){re.escape(sign)}", text))


def test_latex_is_balanced_and_escaped():
    for table, columns in [(Table1.of(results()), 12), (odd(), 3)]:
        text = latex(table)
        assert text.isascii() or all(
            ord(sign) < 128 for line in text.splitlines() if line[0] != "%" for sign in line
        )
        body = [line for line in text.splitlines() if not line.startswith("%")]
        lines = [line for line in body if "&" in line]
        assert {unescaped("&", line) for line in lines} == {columns - 1}
        assert all(re.search(r"\\\\(\[1.5pt\])?$", line) for line in lines)
        for line in lines:
            assert unescaped("$", line) % 2 == 0
            assert unescaped("{", line) == unescaped("}", line)
        joined = "\n".join(body)
        for environment in re.findall(r"\\begin\{(\w+)\}", joined):
            assert rf"\end{{{environment}}}" in joined
        assert not unescaped("%", joined) and not unescaped("#", joined)
    (line,) = [line for line in latex(odd()).splitlines() if line.startswith("mine")]
    name = r"mine | 50\% \#1 \textbackslash{}x \{y\} $\sim$\textasciicircum{}\$"
    assert line == rf"{name} & 2 & $0.0410(3)$ \\"


def test_latex_numbers_and_marks():
    lines = latex(Table1.of(results(0.9))).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("FULL & 7"))
    ours, theirs = lines[place].split(" & "), lines[place + 1].split(" & ")
    assert ours[2] == r"$2.250(2)\mathrm{e}{-12}$"
    assert theirs[2] == r"$\checkmark\;2.50\mathrm{e}{-12}$"
    assert theirs[3] == r"$\approx\;0.002$"
    assert lines[-3].startswith("Bayes floor & ")


def test_files(tmp_path):
    paths = write_table1(results(), tmp_path / "new", name="t")
    assert [path.name for path in paths] == ["t.csv", "t.md", "t.tex", "t.html"]
    page = paths[3].read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert html(Table1.of(results())) in page
    assert pl.read_csv(io.BytesIO(paths[0].read_bytes())).height == 29
