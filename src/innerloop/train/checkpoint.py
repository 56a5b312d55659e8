"""Checkpoints: a folder of `.npz` files, each written whole or not at all, the last few kept.

A `.npz` is a zip archive, and a zip archive carries a checksum of every member: a file that was cut short or altered does
not read, and the one before it is used instead.
"""

import re
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from innerloop.files import write_atomically


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of one run in `folder`, of which the newest `keep` stay."""

    folder: Path
    keep: int = 3

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Write `arrays` as the checkpoint of `step`; a crash at any moment leaves the older ones as they were."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(self.folder / f"{step:08d}.npz", arrays)
        files = self._files()
        # Newer ones were damaged, or training would stand there; left alone they would count among those kept.
        stale = [path for path in files if int(path.stem) > step]
        for old in stale + [path for path in files if path not in stale][: -self.keep]:
            old.unlink(missing_ok=True)

    def latest(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """The newest checkpoint that reads whole, as (step, arrays); None if there is none.

        Warns:
            UserWarning: a damaged file was passed over.
        """
        for path in reversed(self._files()):
            try:
                return int(path.stem), read_arrays(path)
            except DamagedFile as error:
                warnings.warn(
                    f"{path} is damaged ({error}); going back to the checkpoint before it", stacklevel=2
                )
        return None

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if re.fullmatch(r"\d+\.npz", path.name))


class DamagedFile(Exception):
    """A file of arrays that does not read whole."""


_NAMES = "__names__"  # all members' names: a damaged directory of the archive may hide one


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as one `.npz`, whole or not at all."""
    everything = {**arrays, _NAMES: np.array(sorted(arrays))}
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **everything))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays that `write_arrays` wrote.

    Raises:
        DamagedFile: the file was cut short or altered.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            if (bad := archive.testzip()) is not None:
                raise DamagedFile(f"the checksum of {bad} is wrong")
            file.seek(0)
            with np.load(file, allow_pickle=False) as members:
                arrays = {name: members[name] for name in members.files}
    # A RuntimeError is what zipfile says of a flag that a flipped bit has set.
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedFile(str(error) or type(error).__name__) from None
    if sorted(arrays.keys() - {_NAMES}) != arrays.pop(_NAMES, np.array([])).tolist():
        raise DamagedFile("a member is missing")
    return arrays


def part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Those whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
