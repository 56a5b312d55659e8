"""Figures as files: the same bytes every time, and SVG that is safe in a page."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest

from figure_tables import MAKERS, curve_table
from innerloop import figures
from innerloop.figures.style import rc


@pytest.mark.parametrize("name", MAKERS)
def test_files_are_the_same_bytes_every_time(name, tmp_path):
    """The same figure saved again, and another made under a user's odd settings."""
    figure = MAKERS[name]()
    first = [path.read_bytes() for path in figures.save(figure, tmp_path / "new" / "folder", "a")]
    assert first == [path.read_bytes() for path in figures.save(figure, tmp_path, "b")]
    with matplotlib.rc_context(
        {"font.size": 20, "lines.linewidth": 7, "svg.hashsalt": "x", "axes.grid": False}
    ):
        assert first == [path.read_bytes() for path in figures.save(MAKERS[name](), tmp_path, "c")]
    assert first[0][:4] == b"\x89PNG"
    assert first[1][:5] == b"%PDF-"
    assert b"<svg" in first[2]
    assert not any(b"CreationDate" in content or b"<dc:date>" in content for content in first)


def test_files_are_the_same_in_another_process(tmp_path):
    """With other string hashes; and pyplot, with its global state, is never imported."""
    table = {"method": ["full", "diag"], "layer": [0, 0], "value": [1, 2], "standard_error": [0, 0]}
    code = (
        "import sys; from innerloop import figures\n"
        f"figures.save(figures.loss_after_layer({table}), sys.argv[1], 'there')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    package = str(Path(figures.__file__).parents[2])
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": package}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, timeout=120)
    here = figures.save(figures.loss_after_layer(table), tmp_path, "here")
    for path in here:
        assert path.read_bytes() == path.with_stem("there").read_bytes()


def test_settings_are_left_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    for make in MAKERS.values():
        figures.svg(make())
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.rcParams["svg.hashsalt"] != rc["svg.hashsalt"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "../a"])
def test_a_name_with_a_folder_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="name must be a file name"):
        figures.save(MAKERS["heat"](), tmp_path, name)


def test_svg_ids_are_unique_in_a_page():
    pieces = [figures.svg(make()) for make in MAKERS.values()]
    pieces.append(figures.svg(MAKERS["heat"](), prefix="again"))
    for piece in pieces:
        assert piece.startswith("<svg ")
        assert piece.endswith("</svg>")
    page = f"<html>{''.join(pieces)}</html>"
    assert "<?xml" not in page
    assert "<!DOCTYPE" not in page
    elements = list(ElementTree.fromstring(page).iter())  # well-formed, too
    ids = [element.get("id") for element in elements if element.get("id")]
    assert len(ids) > 500
    assert len(set(ids)) == len(ids)


def test_svg_references_stay_inside():
    for make in MAKERS.values():
        text = figures.svg(make())
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
        assert references
        assert {a or b for a, b in references} <= ids
        (sheet,) = re.findall(r"<style[^>]*>(.*?)</style>", text)
        (root,) = re.findall(r'^<svg id="([^"]+)"', text)
        assert re.fullmatch(
            rf"#{root} \*\{{[^{{}}]*\}}", sheet
        )  # no rule that would touch the rest of the page


def test_svg_is_named_by_the_title_and_safe():
    table = curve_table("layers", ["full"], [1, 2])
    figure = figures.regret_against_depth(table, title='a < b & "c"')
    assert ElementTree.fromstring(figures.svg(figure)).get("aria-label") == 'a < b & "c"'
    assert figures.svg(figure) == figures.svg(figure)
    with pytest.raises(ValueError, match="prefix must be"):
        figures.svg(figure, prefix='"><script>')
