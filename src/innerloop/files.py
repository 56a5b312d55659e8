"""Files that are written whole or not at all, and what a process that was killed leaves of them.

A writer holds a lock on its temporary file or folder until it is done with it. The system lets go of the lock when the
process ends, however it ends, so what nobody holds is nobody's: no clock and no process number is asked.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"\..+\.(npz|json|yaml|parquet)\.[a-z0-9_]{8}")  # as `write_atomically` names them
_SCRATCH = re.compile(r"\.innerloop-scratch-[a-z0-9_]{8}")


def write_atomically(path: Path, write: Callable[[Any], object]) -> None:
    """Let `write(file)` fill a temporary file beside `path`, flush it to disk, and rename it into place."""
    handle, name = _held(lambda: tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}."))
    with os.fdopen(handle, "wb") as file:  # held until it has its name
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files in `folder` whose writers are dead; which these were."""
    found = [path for path in folder.glob(".*") if _TEMPORARY.fullmatch(path.name)]
    return [path for path in found if _removed(path, lambda path: path.unlink(missing_ok=True))]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder among the system's temporary ones that is removed afterwards, as are those of processes that were killed."""
    for left in Path(tempfile.gettempdir()).glob(".innerloop-scratch-*"):
        if _SCRATCH.fullmatch(left.name):
            _removed(left, lambda path: shutil.rmtree(path, ignore_errors=True))

    def make() -> tuple[int, str]:
        while True:
            name = tempfile.mkdtemp(prefix=".innerloop-scratch-")
            with suppress(FileNotFoundError):  # taken for nobody's
                return os.open(name, os.O_RDONLY), name

    handle, name = _held(make)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        os.close(handle)


def _held(make: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Something temporary and its lock. One that is removed before it is locked, as nobody's, is made again."""
    while True:
        handle, name = make()
        with suppress(OSError):  # a file system without locks, on which nothing is ever removed either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):
            return handle, name
        os.close(handle)


def _removed(path: Path, remove: Callable[[Path], object]) -> bool:
    """Whether nobody held it, and it is gone."""
    try:
        # A shared file system may want a file to be open for writing before it gives the lock.
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
        return True
    except OSError:  # somebody is at it, or it is not ours to remove
        return False
    finally:
        os.close(handle)
