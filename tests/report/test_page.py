"""The report of a hand-made comparison, read back with an HTML parser."""

import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from innerloop.evaluation import Estimate, Evaluation
from innerloop.report import Comparison, Entry, write_report


def evaluation(loss: float, error: float, *, layers: int, floor: float = 0.04) -> Evaluation:
    exact = Estimate(floor, 0.0001)
    return Evaluation(
        adjusted_loss=Estimate(loss, error),
        unadjusted_loss=Estimate(loss + 1, error),
        oracle=Estimate(1.0, 0.001),
        floor=exact,
        regret=Estimate(loss - floor if loss > floor else loss, error),
        worst_share=0.0123,
        not_finite=2,
        sequences=123_456,
        per_layer=tuple(Estimate(loss + k, error) for k in reversed(range(layers + 1))),
    )


COMPARISON = Comparison(
    noise="uniform(0,5)",
    dim=2,
    context=6,
    entries=(
        Entry("diag", 1, evaluation(0.9, 0.001, layers=1), 0.907),  # lower by 7 errors
        Entry("diag", 2, evaluation(0.25, 0.001, layers=2), 0.242),  # higher by 8 errors
        Entry("gd++", 1, evaluation(0.9071, 0.001, layers=1), 0.907),  # the same
        Entry(
            "gd++", 2, evaluation(0.3684, 0.001, layers=2), 0.366
        ),  # above by 2.4 errors, but not beyond rounding
        Entry("gd++ <b>", 3, evaluation(1.5e-5, 1e-6, layers=3), None),
    ),
    baselines={
        "constrr": (evaluation(0.365, 0.001, layers=0), 0.365, {"sigma": 2.887}),
        "tunedrr": (evaluation(0.047, 0.0001, layers=0), 0.049, {"factor": 2.0, "cap": 12.5}),
        "ols": (evaluation(4.25, 0.01, layers=0), None, {}),
    },
    floor=Estimate(0.04, 0.0001),
    profiles=pl.DataFrame(
        {
            "method": ["diag, 2 layers"] * 3 + ["bayes"] * 3,
            "sigma": [0.0, 3.0, 6.0] * 2,
            "value": [0.1, 0.2, 0.4, 0.01, 0.05, 0.3],
            "standard_error": [0.01] * 6,
        }
    ),
    matrices=(np.ones((2, 1, 3, 3)), np.eye(3)[None, None].repeat(2, 0), "diag, 2 layers"),
    training={"diag": 12.4, "gd++": 3.0},
    environment={"python": "3.11", "device": "<cpu>"},
    command="innerloop demo --out demo",
)

MARKS = {"diag 1": "▼", "diag 2": "▲", "gd++ 1": "=", "gd++ 2": "=", "gd++ <b> 3": ""} | {
    "constrr ": "=",
    "tunedrr ": "▼",
    "ols ": "",
    "Bayes floor ": "",
}


class Page(HTMLParser):
    """Tags with their attributes, and the cells of the first table's body."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.classes: list[list[str]] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
            self.classes.append([])
        if tag == "td":
            self.rows[-1].append("")
            self.classes[-1].append(dict(attrs).get("class") or "")
            self._cell = True

    def handle_endtag(self, tag):
        if tag == "td":
            self._cell = False

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    assert write_report(COMPARISON, folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def rows(page) -> dict[str, list[str]]:
    return {f"{row[0]} {row[1]}": row for row in page.rows if row}


def test_the_page_needs_nothing_but_itself(page, text):
    tags = Counter(tag for tag, _ in page.tags)
    assert tags["script"] == tags["link"] == tags["img"] == tags["iframe"] == 0
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, name)
    assert "@import" not in text
    assert re.findall(r"url\((?!#)[^)]*\)", text) == []


def test_every_id_is_unique_and_every_reference_leads_to_one(page, text):
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    references = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)
    assert references
    assert {first or second for first, second in references} <= set(ids)


def test_the_table_has_the_numbers_of_the_csv(folder, rows):
    table = pl.read_csv(folder / "table.csv")
    assert table.to_dicts() == COMPARISON.table().to_dicts()
    assert len(rows) == len(table) + 1
    for row in table.iter_rows(named=True):
        cells = rows[f"{row['method']} {row['layers'] or ''}"]
        for cell, name in {2: "value", 3: "standard_error", 4: "published", 6: "regret"}.items():
            if row[name] is None:
                assert cells[cell] == ""
            else:
                # Three decimals as the paper prints; five for errors; five figures, or three of what is below 1e-4.
                tiny, large = abs(row[name]) < 1e-4, abs(row[name]) >= 1
                figures = 0.0051 * abs(row[name]) if tiny else 5.1e-5 if large else 5.1e-6
                tolerance = {"published": 5.1e-4, "standard_error": 5.1e-6}.get(name, figures)
                assert float(cells[cell]) == pytest.approx(row[name], abs=tolerance), (row["method"], name)
    assert rows["diag 1"][7:] == ["1.2 %", "2"]
    assert rows["Bayes floor "][2:4] == ["0.04000", "0.00010"]


def test_marks_say_better_and_worse_beyond_error_and_rounding(page, rows):
    assert {name: cells[5] for name, cells in rows.items()} == MARKS
    classes = {
        f"{cells[0]} {cells[1]}": found for cells, found in zip(page.rows, page.classes, strict=True) if cells
    }
    for name, mark in MARKS.items():
        assert classes[name][2] == {"▼": "better", "▲": "worse"}.get(mark, ""), name


def test_csv_rows_follow_from_the_evaluations():
    rows = COMPARISON.table().to_dicts()
    assert [row["method"] for row in rows] == [
        "diag",
        "diag",
        "gd++",
        "gd++",
        "gd++ <b>",
        "constrr",
        "tunedrr",
        "ols",
    ]
    assert rows[0] == {
        "method": "diag",
        "layers": 1,
        "value": 0.9,
        "standard_error": 0.001,
        "published": 0.907,
        "regret": pytest.approx(0.86),
        "worst_share": 0.0123,
        "not_finite": 2,
    }
    assert rows[-1]["regret"] == pytest.approx(4.21)
    assert rows[-1]["layers"] is None and rows[-1]["worst_share"] is None


def test_names_cannot_become_markup(text):
    assert "gd++ <b>" not in text and "gd++ &lt;b&gt;" in text
    assert "<cpu>" not in text and "&lt;cpu&gt;" in text


def test_the_page_says_what_the_numbers_are_and_where_they_come_from(text):
    for said in ("123,456 fresh sequences", "half the squared error", "uniform(0,5)", "d = 2", "n = 6"):
        assert said in " ".join(text.split()), said
    for said in ("innerloop demo --out demo", "trained in 12 s", "sigma = 2.887", "factor = 2, cap = 12.5"):
        assert said in text, said


def test_every_picture_is_in_the_page_and_beside_it(folder, page):
    figures = [attributes["id"] for tag, attributes in page.tags if tag == "figure"]
    assert figures == ["figure1", "figure2", "layers", "regret", "matrices"]
    assert sum(tag == "svg" for tag, _ in page.tags) == len(figures)
    for name in figures:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert b"<svg" in (folder / f"{name}.svg").read_bytes()
    files = {path.name for path in folder.iterdir()}
    expected = {f"{name}.{ending}" for name in figures for ending in ("png", "pdf", "svg")}
    assert files == expected | {"report.html", "table.csv"}, "no temporary file stays behind"


def test_the_same_comparison_gives_the_same_page(folder, tmp_path):
    again = write_report(COMPARISON, tmp_path)
    assert again.read_bytes() == (folder / "report.html").read_bytes()
