"""Documentation does what it shows: Python blocks run as they stand, and commands are ones that there are."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

from innerloop.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"(?P<before>[^\n]*)\n\n?```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
_SKIPPED = "<!-- not run:"


def blocks(page: Path, *languages: str) -> list[str]:
    """The page's blocks of these languages, in order, but those under a comment that says why they are not run."""
    return [
        match["code"]
        for match in _BLOCK.finditer(page.read_text())
        if match["language"] in languages and not match["before"].startswith(_SKIPPED)
    ]


def commands() -> list[tuple[str, str]]:
    """Every line that calls `innerloop`, with its page."""
    found = []
    for page in PAGES:
        text = "\n".join(blocks(page, "sh", "console")).replace("\\\n", " ")
        # README's two commands are indented, not fenced, and chained.
        text += "\n".join(line[4:] for line in page.read_text().splitlines() if line.startswith("    "))
        for line in text.splitlines():
            for part in re.split(r"&&|;", line.split("#")[0]):
                if part.split()[:1] == ["innerloop"]:
                    found.append((page.name, part.strip()))
    return found


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_blocks_run_one_after_another(page, unchecked, tmp_path, monkeypatch, capsys):
    """As for a reader, whose annotations nobody checks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict = {}
    for code in blocks(page, "python"):
        assert len(code.splitlines()) < 40, "a reader's screen is small"
        exec(compile(code, f"{page.name}: {code.splitlines()[0]}", "exec"), namespace)


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_and_their_options_exist(page, command):
    """Parsed as the command line would be, and not carried out."""
    words = itertools.takewhile(lambda word: word not in (">", "&"), shlex.split(command))
    name, *arguments = list(words)[1:]
    chosen = typer.main.get_command(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue]
    if "--help" not in arguments:
        assert chosen.make_context(name, arguments).info_name == name


def test_there_are_blocks_and_commands():
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 2
    assert {shlex.split(command)[1] for _, command in commands()} >= {"demo", "train", "reproduce", "sweep"}
