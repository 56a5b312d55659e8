"""Run folders by name: those that there are, a new one, and the one that was meant. Needs no JAX: completion asks too."""

import difflib
import os
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

from innerloop.study.errors import SpecError

_DEEP = 4  # runs/STUDY/runs/RUN
_MOST = 5000  # folders to look at: the current one may be anything


def found(under: Path, *, starts: str = "", holding: str = "spec.yaml", deep: int = _DEEP) -> Iterator[Path]:
    """Folders below `under` with a file called `holding`: run folders, by default; the nearest first, by name.

    Args:
        starts: how the name of the first folder on the way begins.
    """
    waiting, left = deque([(under, deep)]), _MOST
    while waiting and left > 0:
        folder, levels = waiting.popleft()
        for child in _folders(folder)[:left]:
            left -= 1
            if folder == under and not child.name.startswith(starts):
                continue
            if os.path.exists(child / holding):
                yield child
            if levels > 1 and not os.path.exists(child / "spec.yaml"):
                waiting.append((child, levels - 1))


def new_folder(under: Path, name: str, now: datetime) -> Path:
    """An empty folder in `under` that was not there before: the name, the date and the time.

    Folders of one name are in the order of their times, and no two are the same.

    Raises:
        SpecError: it cannot be made.
    """
    stem = f"{name}-{now:%Y%m%d-%H%M%S}"
    for again in count(1):
        folder = under / (stem if again == 1 else f"{stem}-{again}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise SpecError(f"cannot make the run folder {folder}: {error.strerror or error}") from None
    raise AssertionError("there is always a next number")


def why_no_run(folder: Path) -> str:
    """What is said of a folder that is not a run: why, and which run may be meant."""
    said = f"{folder} is not a run: "
    if not os.path.exists(folder):  # or not to be seen
        return f"{said}there is no such folder{meant(folder)}"
    if not os.path.isdir(folder):
        return f"{said}it is a file{meant(folder)}"
    study, inside = os.path.exists(folder / "study.yaml"), list(found(folder))
    if not inside:
        return f"{said}{'it is a study' if study else 'it has no spec.yaml'}{meant(folder)}"
    several = f"{len(inside)} run{'s' if len(inside) > 1 else ''}, such as {inside[0]}"
    return f"{said}{'it is a study of' if study else 'it has no spec.yaml; it holds'} {several}"


def places(under: Path, *, starts: str = "") -> list[Path]:
    """Studies, and folders with runs in them, below `under`."""
    studies = set(found(under, starts=starts, holding="study.yaml"))
    holders = {run.parent for run in found(under, starts=starts)}
    return sorted(studies | {folder for folder in holders if folder.parent not in studies} - {under})


def meant(folder: Path, what: str = "run") -> str:
    """The end of a message about a folder that is no `what`, a run, study or place: the nearest one that is."""
    holding = {"run": "spec.yaml", "study": "study.yaml"}.get(what, "")
    near = (
        [*places(Path())] if what == "place" else [*found(Path(), holding=holding), *_beside(folder, holding)]
    )
    there = list(dict.fromkeys(near))
    scored = [(_likeness(str(folder), each), index) for index, each in enumerate(there)]
    likeness, index = max(scored, default=(0.0, 0))
    if likeness >= 0.6:
        return f"; did you mean {there[index]}?"
    if what == "place":
        return f"; there are runs in {', '.join(map(str, there[:5]))}" if there else ""
    if not there:
        return f"; there is no {what} here yet, innerloop {'train' if what == 'run' else 'sweep'} makes one"
    return f"; the newest {what} here is {max(there, key=lambda each: os.path.getmtime(each / holding))}"


def _beside(folder: Path, holding: str) -> list[Path]:
    parent = folder.parent
    return list(found(parent, holding=holding, deep=1)) if parent != Path() and os.path.isdir(parent) else []


def _likeness(asked: str, there: Path) -> float:
    """How well a path fits what was asked for, of which the end, with date and time, may be missing."""
    name = os.path.basename(asked)
    if name and there.name.startswith(name):
        return 1.0
    pairs = [(asked, str(there)), (name, there.name)]
    if len(name) > 3:
        pairs.append((name, there.name[: len(name)]))
    return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name[0] not in "._" and entry.is_dir()]
    except OSError:  # not to be read, or gone
        return []
    return [folder / name for name in sorted(names)]
