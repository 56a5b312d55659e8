"""What a killed writer leaves goes, and what a living one holds stays."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from innerloop.files import remove_leftovers, scratch_folder, write_atomically

WRITER = """\
import os, signal, sys
from pathlib import Path
from innerloop.files import write_atomically

def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    signal.pause()

write_atomically(Path(sys.argv[1]), write)
"""
SCRATCH = """\
import signal
from innerloop.files import scratch_folder

with scratch_folder() as folder:
    (folder / "file").write_text("pulled")
    print(folder, flush=True)
    signal.pause()
"""


@pytest.fixture
def started():
    """Starts a script that says one line and then waits to be killed."""
    running: list[subprocess.Popen] = []

    def start(script: str, *arguments: object) -> tuple[subprocess.Popen, str]:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        running.append(process := subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_what_a_killed_writer_leaves_is_removed_and_what_a_living_one_holds_is_not(tmp_path, started):
    path = tmp_path / "model.npz"
    process, _ = started(WRITER, path)
    (half,) = tmp_path.iterdir()
    assert remove_leftovers(tmp_path) == [] and half.read_bytes() == b"half"
    process.kill()
    process.wait()
    assert remove_leftovers(tmp_path) == [half]
    assert list(tmp_path.iterdir()) == []


def test_other_hidden_files_stay(tmp_path):
    for name in (
        ".gitignore",
        ".nfs000000a1",
        ".model.npz.backup-of-mine",
        ".notes.abcd1234",
        "a.npz.abcd1234",
    ):
        (tmp_path / name).write_text("mine")
    assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path / "gone") == []


def test_a_temporary_file_that_is_taken_for_nobodys_is_made_again(tmp_path, monkeypatch):
    """The moment between making and locking it: whoever removes leftovers then must not make the writer fail."""
    make, made = tempfile.mkstemp, []

    def raced(**where):
        handle, name = make(**where)
        made.append(name)
        if len(made) == 1:
            assert remove_leftovers(tmp_path) == [Path(name)]
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", raced)
    write_atomically(tmp_path / "status.json", lambda file: file.write(b"{}"))
    assert len(made) == 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"status.json": "{}"}


def test_a_scratch_folder_goes_with_its_process_or_with_the_next_one(tmp_path, started, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = tmp_path / ".innerloop-scratch-of-a-person"
    mine.mkdir()
    process, name = started(SCRATCH)
    assert Path(name).parent == tmp_path
    with scratch_folder() as other:
        assert os.listdir(name) == ["file"]
    assert not other.exists()
    process.kill()
    process.wait()
    with scratch_folder():
        assert not Path(name).exists()
    assert list(tmp_path.iterdir()) == [mine]
