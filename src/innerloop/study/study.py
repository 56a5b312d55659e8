"""Studies and runs on disk, as tables: what `innerloop runs` lists and `load_study` returns."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from innerloop.study.folders import meant
from innerloop.study.remote import Mirror, mirrored
from innerloop.study.store import SCHEMAS, Store, select

_STUDY_FILE = re.compile(r"([^/]+/)?study\.yaml")
_SMALL_FILE = re.compile(
    r"((?P<study>([^/]+/)?)runs/)?[^/]+/(spec\.yaml|(status|evaluation|environment)\.json)"
)


@dataclass(frozen=True)
class Study:
    """A study on disk, whether it is done or still going on.

    Attributes:
        folder: where it is, or its URL.
        runs: one row a run: its spec in columns task, model, train, evaluate, its losses, its status.
        history: one row a run and reporting interval.
        evaluations: one row a run and quantity, each with a standard error.
    """

    folder: Path | str
    runs: pl.DataFrame
    history: pl.DataFrame
    evaluations: pl.DataFrame

    def query(self, where: str) -> pl.DataFrame:
        """The rows of `runs` for which a SQL condition holds, such as `model.layers = 4 and adjusted_loss < 0.05`."""
        return select(self.runs, where)


def load_study(folder: str | Path) -> Study:
    """The study in `folder`, which may be a URL.

    Raises:
        FileNotFoundError: there is none.
        SpecError: the URL cannot be read.
    """
    with mirrored(folder) as mirror:
        mirror.pull("study.yaml", "tables")
        here = mirror.folder
        if not (here / "study.yaml").exists():
            hint = "" if mirror.apart else meant(here, "study")
            raise FileNotFoundError(f"{here} is not a study: it has no study.yaml{hint}")
        store = Store(here)
        return Study(mirror.address, *(store.read(table) for table in ("runs", "history", "evaluations")))


def find_runs(folder: Path | str, where: str | None = None) -> pl.DataFrame:
    """All runs in `folder`, which may be a URL: those of a study if it is one, else of the studies and run folders in it.

    Runs that are not in a study's tables yet are read from their folders.

    Raises:
        QueryError: `where` is not a condition on the columns.
        FileNotFoundError: there is no such folder.
        SpecError: the URL cannot be read.
    """
    with mirrored(folder) as mirror:
        if mirror.apart:
            _pull_what_is_listed(mirror)
        if not mirror.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {mirror.folder}{meant(mirror.folder, 'place')}")
        return _found(mirror.folder, where)


def _pull_what_is_listed(mirror: Mirror) -> None:
    """Tables, and the small files of those runs that no table has."""
    names = mirror.names()
    if not names:
        raise FileNotFoundError(f"there is no folder {mirror.address}")
    studies = {name.removesuffix("study.yaml") for name in names if _STUDY_FILE.fullmatch(name)}
    mirror.pull(
        wanted=lambda name: (
            name.startswith(tuple(f"{study}tables/" for study in studies))
            or name in {f"{study}{each}" for study in studies for each in ("study.yaml", "done")}
        )
    )
    known = {
        f"{study}runs/{run}" for study in studies for run in Store(mirror.folder / study).read("runs")["run"]
    }
    mirror.pull(
        wanted=lambda name: bool(_SMALL_FILE.fullmatch(name)) and name.rpartition("/")[0] not in known
    )


def _found(folder: Path, where: str | None) -> pl.DataFrame:
    studies = [
        path.parent
        for path in ([folder / "study.yaml"] + sorted(folder.glob("*/study.yaml")))
        if path.exists()
    ]
    loose = [] if (folder / "study.yaml").exists() else sorted(folder.glob("*/spec.yaml"))
    if len(studies) == 1 and not loose and not _unrecorded(studies[0]):
        return Store(studies[0]).query("runs", where)
    frames = [_from_folder(path.parent, None) for path in loose]
    for study in studies:
        frames += [Store(study).read("runs"), *(_from_folder(run, study.name) for run in _unrecorded(study))]
    everything = pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMAS["runs"])
    return select(everything, where)


def _unrecorded(study: Path) -> list[Path]:
    """Folders of runs that are not in the tables: none once a study has said that all are."""
    if (study / "done").exists():
        return []
    known = set(Store(study).read("runs")["run"])
    return [
        path.parent for path in sorted((study / "runs").glob("*/spec.yaml")) if path.parent.name not in known
    ]


def _from_folder(folder: Path, study: str | None) -> pl.DataFrame:
    """A run's row from what its folder says: its spec, its status, and its losses if it was evaluated."""
    import yaml

    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    row = {"run": folder.name, "study": study, **spec, **_json(folder / "status.json")}
    row |= _json(folder / "evaluation.json")
    row["revision"] = _json(folder / "environment.json").get("git_revision")
    known = {name: row.get(name) for name in SCHEMAS["runs"]}
    return pl.DataFrame([known], schema=SCHEMAS["runs"], strict=False)


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
