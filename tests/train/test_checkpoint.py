"""Checkpoints survive what disks and kills do to files."""

import os

import numpy as np
import pytest

from innerloop.files import write_atomically
from innerloop.train.checkpoint import Checkpoints


def arrays(step: int) -> dict[str, np.ndarray]:
    return {"theta": np.arange(16.0) + step, "step": np.array(step)}


def assert_is(found, step: int) -> None:
    assert found is not None and found[0] == step
    assert found[1].keys() == arrays(step).keys()
    for name, expected in arrays(step).items():
        np.testing.assert_array_equal(found[1][name], expected)
        assert found[1][name].dtype == expected.dtype


@pytest.fixture
def two(tmp_path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, arrays(1))
    checkpoints.save(2, arrays(2))
    return checkpoints


def newest(checkpoints: Checkpoints):
    return checkpoints.folder / "00000002.npz"


def test_the_newest_is_found(two):
    assert_is(two.latest(), 2)
    two.save(100_000_000, arrays(100_000_000))  # nine digits, sorted as a number
    assert_is(two.latest(), 100_000_000)


@pytest.mark.parametrize("keep", [0, 1, 10, 300, -1])
def test_truncated(two, keep):
    """Cut after so many bytes; 0 leaves an empty file."""
    whole = newest(two).read_bytes()
    newest(two).write_bytes(whole[:keep])
    with pytest.warns(UserWarning, match=r"00000002\.npz is damaged .*going back to the checkpoint before"):
        assert_is(two.latest(), 1)


@pytest.mark.filterwarnings("ignore:.*is damaged:UserWarning")
def test_a_flipped_bit_anywhere_is_harmless_or_noticed(two):
    """Never an exception, never other arrays than were saved."""
    whole = newest(two).read_bytes()
    older = 0
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            newest(two).write_bytes(damaged)
            found = two.latest()
            assert found is not None
            assert_is(found, found[0])
            older += found[0] == 1
    assert older > 4 * len(whole)  # most bits matter, and those are seen


@pytest.mark.filterwarnings("ignore:.*is damaged:UserWarning")
def test_a_flipped_bit_in_the_header_of_a_large_array(tmp_path):
    """NumPy reads as many bytes as the header asks for, and only a full read meets the checksum."""
    checkpoints = Checkpoints(tmp_path)
    large = {"theta": np.arange(6000.0)}
    checkpoints.save(1, {"theta": np.zeros(1)})
    checkpoints.save(2, large)
    whole = newest(checkpoints).read_bytes()
    place = whole.index(b"(6000,)") + 1  # "6" is one bit from "4"
    newest(checkpoints).write_bytes(whole[:place] + b"4" + whole[place + 1 :])
    found = checkpoints.latest()
    assert found is not None and found[0] == 1


def test_bit_flip_in_the_data_warns(two):
    whole = bytearray(newest(two).read_bytes())
    whole[whole.index(np.float64(17).tobytes())] ^= 1  # the last entry of theta
    newest(two).write_bytes(whole)
    with pytest.warns(UserWarning, match="is damaged"):
        assert_is(two.latest(), 1)


def test_nothing_readable(two, tmp_path):
    assert Checkpoints(tmp_path / "nowhere").latest() is None
    for path in two.folder.iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged") as caught:
        assert two.latest() is None
    assert len(caught) == 2


def test_keeps_the_last_three(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (3, 20, 100, 101, 7000):
        checkpoints.save(step, arrays(step))
    assert sorted(os.listdir(tmp_path)) == ["00000100.npz", "00000101.npz", "00007000.npz"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"half of the new")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, fails)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_temporary_files_of_a_killed_writer_are_ignored(two):
    """Also ones that would be newer."""
    (two.folder / ".00000009.npz.k3j2h1").write_bytes(newest(two).read_bytes())
    (two.folder / ".00000010.npz").write_bytes(b"half")
    assert_is(two.latest(), 2)
    two.save(3, arrays(3))
    assert_is(two.latest(), 3)
