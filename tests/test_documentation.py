"""Documentation does what it shows: Python blocks and notebooks run as they stand, and commands are ones that there are."""

import itertools
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from innerloop.cli import app
from innerloop.study import StudySpec, make_plan, parse_spec

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PAGES += sorted([*DOCS.glob("guides/*.md"), *DOCS.glob("notebooks/*.md")])
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.py"))
_BLOCK = re.compile(
    r"(?P<before>[^\n]*)\n\n?```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]+)")
_SKIPPED = "<!-- not run:"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


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
                    found.append((name_of(page), part.strip()))
    return found


def specs() -> list[tuple[str, dict]]:
    """Every run and study in YAML, with its page."""
    found = [(name_of(page), yaml.safe_load(code)) for page in PAGES for code in blocks(page, "yaml")]
    return [(name, mapping) for name, mapping in found if {"task", "axes"} & set(mapping)]


def cells(notebook: Path) -> list[tuple[bool, str]]:
    """Whether it is text, and what it holds, of every cell of a file in the percent format."""
    start, *found = re.split(r"^# %%(.*)\n", notebook.read_text(), flags=re.MULTILINE)
    assert start == "", "a notebook begins with a cell"
    return [("[markdown]" in head, body) for head, body in zip(found[::2], found[1::2], strict=True)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_blocks_run_one_after_another(page, unchecked, tmp_path, monkeypatch, capsys):
    """As for a reader, whose annotations nobody checks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict = {"__name__": "__main__"}
    for code in blocks(page, "python"):
        assert len(code.splitlines()) < 40, "a reader's screen is small"
        exec(compile(code, f"{page.name}: {code.splitlines()[0]}", "exec"), namespace)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_notebooks_run_from_top_to_bottom(notebook, unchecked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "__main__"}
    for number, (is_text, body) in enumerate(cells(notebook), start=1):
        if is_text:
            assert all(line.startswith("#") for line in body.splitlines() if line), "text is in comments"
        else:
            exec(compile(body, f"{notebook.name}, cell {number}", "exec"), namespace)
    assert [path.suffix for path in tmp_path.iterdir()] == [".png"], "one picture, in the current folder"


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_and_their_options_exist(page, command):
    """Parsed as the command line would be, and not carried out."""
    words = itertools.takewhile(lambda word: word not in (">", "&"), shlex.split(command))
    name, *arguments = list(words)[1:]
    chosen = typer.main.get_command(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue]
    if "--help" not in arguments:
        assert chosen.make_context(name, arguments).info_name == name


@pytest.mark.parametrize(("page", "mapping"), specs())
def test_specs_are_accepted(page, mapping):
    if "axes" in mapping:
        assert len(make_plan(StudySpec.model_validate(mapping)).runs) > 1
    else:
        assert parse_spec(mapping).task.dim == mapping["task"]["dim"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    for match in _LINK.finditer(_BLOCK.sub("", page.read_text())):
        assert (page.parent / match["path"]).exists(), match["path"]


def test_there_is_something_of_every_kind():
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 20
    assert {shlex.split(command)[1] for _, command in commands()} >= {"demo", "train", "reproduce", "sweep"}
    assert len(NOTEBOOKS) == 3 and len(specs()) >= 3
    listed = (DOCS / "notebooks" / "index.md").read_text()
    assert all(f"({notebook.name})" in listed for notebook in NOTEBOOKS)


def test_the_citation_is_of_this_version():
    """CITATION.cff has what version 1.2.0 of its format requires, and agrees with the package and docs/cite.md."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["message"]
    assert str(citation["version"]) == project["version"] and citation["license"] == project["license"]
    page = (DOCS / "cite.md").read_text()
    for cited in (citation, *citation["references"]):
        assert cited["type"] and cited["authors"] and f"title = {{{cited['title']}}}" in page
    assert f"version = {{{project['version']}}}" in page
