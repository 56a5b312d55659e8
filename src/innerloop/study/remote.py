"""Studies and runs on object storage: the working form stays a local folder, and a mirror carries files between the two.

An address is a folder, or a URL such as s3://bucket/study. Files are written whole or not at all: here by renaming, there
because an object store shows an object when all of it has come. So a tree is pushed file by file, in an order in which what
a reader finds is complete: what a checkpoint or a row relies on is there before it, and what was replaced (by a newer
checkpoint, by a compacted table) is deleted after what replaces it has come.

fsspec is imported for URLs only.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from innerloop.files import scratch_folder
from innerloop.study.errors import SpecError

_SCHEMES = ("s3", "gs", "memory")  # their writes are atomic; memory is that of one process, for tests
_PUSH_EVERY = 10.0  # seconds of training that a lost node may cost, besides those since the last checkpoint
_TRIES = 5
_ORDER = ("metrics.parquet", "checkpoints/", "model.npz", "status.json")
_TABLES = ("tables/history/", "tables/evaluations/", "tables/runs/")


def address_of(text: Path | str) -> Path | str:
    """Where a study or a run is: a folder, or the URL of one on object storage, which stays text.

    Raises:
        SpecError: it is a URL that is not understood.
    """
    if isinstance(text, Path) or "://" not in text:
        return Path(text)
    scheme, _, rest = text.partition("://")
    if scheme == "file":  # a folder that all hosts see needs no mirror
        if not rest.startswith("/"):
            raise SpecError(f"{text}: file:// takes an absolute path, such as file:///shared/study")
        return Path(rest)
    if scheme not in _SCHEMES:
        raise SpecError(f"{text}: results go to a folder, s3://, gs:// or file://, got {scheme}://")
    if not rest.strip("/") or set(rest) & set("*?[]") or ".." in rest.split("/"):
        raise SpecError(f"{text}: must name a bucket and a folder in it, such as {scheme}://bucket/study")
    return text.rstrip("/")


@contextmanager
def mirrored(address: Path | str) -> Iterator["Mirror"]:
    """The mirror of what is at `address`: of a folder the folder itself, of a URL an empty scratch folder to pull into.

    Raises:
        SpecError: the URL is not understood, or what it needs is not installed.
    """
    address = address_of(address)
    if isinstance(address, Path):
        yield Mirror(address, address)
        return
    system, root = _file_system(address)
    with scratch_folder() as scratch:
        folder = scratch / address.partition("://")[2]  # messages end in what the address ends in
        folder.mkdir(parents=True)
        try:
            yield Mirror(address, folder, system, root)
        except (SpecError, FileNotFoundError) as error:  # of the folder, meaning the address
            if str(folder) not in str(error):
                raise
            raise type(error)(str(error).replace(str(folder), address)) from None


@dataclass
class Mirror:
    """A folder here, and its copy elsewhere if it has one; without, pulling and pushing do nothing.

    One process uses it. Others may push to the same address: a mirror replaces and deletes only what it pulled or pushed.

    Attributes:
        address: a folder, or a URL.
        folder: where the files are worked on.
    """

    address: Path | str
    folder: Path
    _system: Any = field(default=None, repr=False)
    _root: str = field(default="", repr=False)
    _known: dict[str, tuple] = field(
        default_factory=dict, repr=False
    )  # name -> the file as it is at both ends
    _pushed: float = field(default=float("-inf"), repr=False)

    @property
    def apart(self) -> bool:
        """Whether the copy is elsewhere."""
        return self._system is not None

    def names(self, under: str = "") -> list[str]:
        """The files at the address that are in the folder `under`, or are that file; none for a mirror without a copy.

        Raises:
            SpecError: the address cannot be read; with the reason.
        """
        if not self.apart:
            return []
        place = f"{self._root}/{under}".rstrip("/")
        with _refused("read", self.address):
            found = self._system.find(place)
        names = [name.removeprefix(self._root).lstrip("/") for name in found if not name.endswith("/")]
        return sorted(name for name in names if name and ".." not in name.split("/"))

    def pull(self, *under: str, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Fetch the files in the folders `under`, by default all, that are `wanted` and not here yet.

        Raises:
            SpecError: the address cannot be read; with the reason.
        """
        for attempt in range(_TRIES):
            listed = {name for each in under or ("",) for name in self.names(each) if wanted(name)}
            missing = sorted(listed - self._known.keys())
            if not missing:
                return
            for name in missing:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                with _refused("read", self.address, gone=attempt < _TRIES - 1):
                    self._system.get(*self._pairs(missing)[::-1])
            except FileNotFoundError:  # replaced between listing and reading
                for name in missing:
                    (self.folder / name).unlink(missing_ok=True)
                continue
            self._known |= {name: _signature(self.folder / name) for name in missing}

    def push(self) -> int:
        """Send what is new or changed, then delete what is no longer here; how many files were sent.

        Raises:
            SpecError: the address cannot be written; with the reason.
        """
        if not self.apart:
            return 0
        here = _files(self.folder)
        changed = [name for name, signature in here.items() if self._known.get(name) != signature]
        with _refused("write", self.address):
            for _, names in groupby(sorted(changed, key=_turn), key=_turn):
                names = list(names)
                self._system.put(*self._pairs(names))
                self._known |= {name: here[name] for name in names}
            for name in sorted(self._known.keys() - here.keys()):
                with suppress(FileNotFoundError):  # another process has deleted it
                    self._system.rm_file(f"{self._root}/{name}")
                del self._known[name]
        self._pushed = time.monotonic()
        return len(changed)

    def saved(self) -> None:
        """Push, unless that was just done; a failure is a warning, for there will be another push.

        Warns:
            UserWarning: the address cannot be written.
        """
        if not self.apart or time.monotonic() - self._pushed < _PUSH_EVERY:
            return
        try:
            self.push()
        except SpecError as error:
            self._pushed = time.monotonic()
            warnings.warn(f"{error}; training goes on, and it is tried again", stacklevel=2)

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Push when what is done here ends, and when it fails too.

        Raises:
            SpecError: the address cannot be written, and nothing else was wrong.
        """
        try:
            yield
        except BaseException:
            try:
                self.push()
            except SpecError as error:
                warnings.warn(f"{error}; what was done since the last push is lost", stacklevel=3)
            raise
        self.push()

    def _pairs(self, names: list[str]) -> tuple[list[str], list[str]]:
        return [str(self.folder / name) for name in names], [f"{self._root}/{name}" for name in names]


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and what the URL is called in it."""
    try:
        import fsspec

        # A listing that is remembered would hide what others have pushed.
        system = fsspec.filesystem(address.partition("://")[0], use_listings_cache=False)
    except ImportError as error:
        raise SpecError(f'{address} needs more packages: pip install "innerloop[remote]" ({error})') from None
    except Exception as error:
        raise SpecError(f"cannot open {address}: {_reason(error)}") from None
    return system, system._strip_protocol(address).rstrip("/")


@contextmanager
def _refused(doing: str, address: Path | str, *, gone: bool = False) -> Iterator[None]:
    """Whatever fsspec's file systems raise, each kind errors of its own, becomes one message.

    Args:
        gone: let a FileNotFoundError through: the caller knows what to do.
    """
    try:
        yield
    except Exception as error:
        if gone and isinstance(error, FileNotFoundError):
            raise
        raise SpecError(f"cannot {doing} {address}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    words = " ".join((str(error) or type(error).__name__).split())
    for kind, meaning in (
        (FileNotFoundError, "no such bucket or object"),
        (PermissionError, "no permission"),
    ):
        if isinstance(error, kind):  # the servers' own words are sometimes a bare path
            return f"{meaning} ({words})"
    return words


def _files(folder: Path) -> dict[str, tuple]:
    """The files in a folder that belong to it: no temporary ones, and no locks, which hold on one machine only."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and not name.startswith("locks/") and path.is_file():
            found[name] = _signature(path)
    return found


def _signature(path: Path) -> tuple:
    """Differs between two contents of a file: each is written as a new file."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _turn(name: str) -> int:
    """When a file's turn to be sent is."""
    if name == "done":
        return len(_ORDER) + len(_TABLES) + 1
    for turn, table in enumerate(_TABLES):
        if name.startswith(table):
            return len(_ORDER) + 1 + turn
    parts = name.split("/")
    known = "checkpoints/" if "checkpoints" in parts[:-1] else parts[-1]
    return 1 + _ORDER.index(known) if known in _ORDER else 0
