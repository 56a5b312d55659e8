"""What the tests of the store share: rows, and what is on disk."""

from pathlib import Path

from innerloop import study
from innerloop.study.store import Store


def row(run: str, loss: float | None = None, **sections) -> dict:
    """A row of the table of runs."""
    spec = study.parse_spec(sections).model_dump(mode="json")
    return {"run": run, "study": "mine", "status": "done", **spec, "adjusted_loss": loss}


def value(run: str, value: float, name: str = "loss") -> dict:
    """A row of the table of evaluations."""
    return {"run": run, "name": name, "value": value, "standard_error": 0.5}


def losses(store: Store) -> dict[str, float]:
    """Of each run in the evaluations its value; no run is there twice."""
    frame = store.read("evaluations")
    assert frame["run"].is_unique().all()
    return dict(zip(frame["run"], frame["value"], strict=True))


def parquet(store: Store, table: str = "evaluations") -> list[Path]:
    return sorted((store.folder / "tables" / table).glob("*.parquet"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
