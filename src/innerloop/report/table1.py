"""Table 1 of Vladymyrov et al. (2024) with ours beside theirs, laid out."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from innerloop.figures.results import checked_results, floor_rows
from innerloop.figures.style import METHODS, looks, method_key
from innerloop.figures.table import Table
from innerloop.report.verdict import Verdict, verdict

MODELS = ("gd++", "diag", "full")  # the paper's rows, in its order
BASELINES = ("constrr", "adarr", "tunedrr")
FLOOR = "Bayes floor"


@dataclass(frozen=True)
class Cell:
    """One number: ours, its standard error (None: not known), and the paper's as printed (None: it has none)."""

    value: float
    standard_error: float | None
    published: str | None

    @property
    def verdict(self) -> Verdict | None:
        return None if self.published is None else verdict(self.value, self.standard_error, self.published)


@dataclass(frozen=True)
class Row:
    """One predictor's row: its name for readers, its depth (None: it has none), and a cell a problem or None.

    `block` counts the parts of the table between which there is a rule.
    """

    method: str
    layers: int | None
    cells: tuple[Cell | None, ...]
    block: int


@dataclass(frozen=True)
class Table1:
    """The table's rows in the paper's order, the text of the noise law above each column, and a note to the caption."""

    problems: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @classmethod
    def of(cls, results: Table, note: str = "") -> "Table1":
        """Results laid out as in the paper: a row a method and depth, a column a problem.

        First the paper's models, depth by depth, then its baselines; then what the paper lacks, in order of
        appearance; last the Bayes floor. Problems are in order of appearance.

        Args:
            results: columns problem, method, layers, value, standard_error and published, as
                `innerloop.figures.results.checked_results` describes them; a value may be infinite.
            note: sentences at the end of the caption.

        Raises:
            ValueError: see `innerloop.figures.results.checked_results`; or two names mean one method.
        """
        frame = checked_results(results, infinite=True)
        problems = tuple(frame["problem"].unique(maintain_order=True))
        floor = floor_rows(frame)
        shown = looks(frame["method"].filter(~floor).unique(maintain_order=True))
        rows = [
            Row(shown[method].label, layers, _cells(part, problems), _block(method))
            for (method, layers), part in _in_order(frame.filter(~floor))
        ]
        return cls(problems, (*rows, Row(FLOOR, None, _cells(frame.filter(floor), problems), 3)), note)

    def cells(self) -> Iterator[tuple[Row, str, Cell]]:
        """Every number, with its row and problem."""
        for row in self.rows:
            for problem, cell in zip(self.problems, row.cells, strict=True):
                if cell is not None:
                    yield row, problem, cell

    def counts(self) -> dict[str, int]:
        """How many cells are better than published, ties and worse."""
        found = [cell.verdict for _, _, cell in self.cells()]
        return {name: found.count(name) for name in ("better", "tie", "worse")}

    def wide(self) -> pl.DataFrame:
        """All digits: columns method and layers, and for every problem P the columns P, P s.e., P published, P verdict."""
        columns: dict[str, list] = {
            "method": [row.method for row in self.rows],
            "layers": [row.layers for row in self.rows],
        }
        for place, problem in enumerate(self.problems):
            cells = [row.cells[place] for row in self.rows]
            for name, part in [
                (problem, "value"),
                (f"{problem} s.e.", "standard_error"),
                (f"{problem} published", "published"),
                (f"{problem} verdict", "verdict"),
            ]:
                columns[name] = [getattr(cell, part, None) for cell in cells]
        return pl.DataFrame(columns)


def _in_order(frame: pl.DataFrame) -> list[tuple[tuple[str, int | None], pl.DataFrame]]:
    """The rows of each method and depth, in the order of the table."""
    appearance = {method: place for place, method in enumerate(frame["method"].unique(maintain_order=True))}

    def place(key: tuple[str, int | None]) -> tuple:
        method, layers = key
        block = _block(method)
        if block == 0:
            return block, layers or 0, MODELS.index(method_key(method) or "")
        if block == 1:
            return block, BASELINES.index(method_key(method) or ""), 0
        # The Bayes-optimal predictor next to its floor.
        return block, method_key(method) == "bayes", appearance[method], layers or 0

    parts = {(str(method), layers): part for (method, layers), part in frame.group_by("method", "layers")}
    return [(key, parts[key]) for key in sorted(parts, key=place)]


def _block(method: str) -> int:
    """0: the paper's models, 1: its baselines, 2: what it lacks."""
    key = method_key(method)
    plain = key in METHODS and looks([method])[method].label == METHODS[key].label  # no details after a comma
    return 0 if plain and key in MODELS else 1 if plain and key in BASELINES else 2


def _cells(part: pl.DataFrame, problems: tuple[str, ...]) -> tuple[Cell | None, ...]:
    found = {
        row["problem"]: Cell(row["value"], row["standard_error"], row["published"])
        for row in part.iter_rows(named=True)
    }
    return tuple(found.get(problem) for problem in problems)
