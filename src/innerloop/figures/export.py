"""Figures as files, and as SVG inside a page. The same figure gives the same bytes."""

import hashlib
import io
import os
import re
from collections import Counter
from html import escape
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from innerloop.figures.style import rc

# No dates; and no versions, which the PNG and PDF writers would add.
_METADATA = {
    "png": {"Software": "innerloop"},
    "pdf": {"Creator": "innerloop", "Producer": "innerloop", "CreationDate": None},
    "svg": {"Creator": "innerloop", "Date": None},
}


def save(figure: Figure, folder: str | os.PathLike, name: str) -> list[Path]:
    """Write NAME.png (200 dots an inch), NAME.pdf and NAME.svg into `folder`, made if it is not there.

    Returns:
        The three paths.

    Raises:
        ValueError: `name` is empty or has a folder in it.
    """
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"name must be a file name without folder or ending, got {name!r}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for ending in _METADATA:
        path = Path(folder) / f"{name}.{ending}"
        path.write_bytes(_rendered(figure, ending))
        paths.append(path)
    return paths


def svg(figure: Figure, *, prefix: str | None = None) -> str:
    """The figure as an `<svg>` element to put into an HTML page.

    Several may share a page: ids start with `prefix` (default: from a hash of the contents, so that it is the
    same every time), and the style sheet is confined to the element. Only one figure twice in a page needs
    own prefixes.

    Raises:
        ValueError: `prefix` is not a letter followed by letters, digits, - or _.
    """
    return _element(_rendered(figure, "svg"), figure, prefix)


def save_and_show(figure: Figure, folder: str | os.PathLike, name: str) -> str:
    """`save`, and the same picture as `svg` gives it, with ids that start with `svg-NAME`."""
    *_, path = save(figure, folder, name)
    return _element(path.read_bytes(), figure, f"svg-{name}")


def _element(rendered: bytes, figure: Figure, prefix: str | None) -> str:
    text = rendered.decode()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    if prefix is None:
        prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", prefix):
        raise ValueError(f"prefix must be a letter, then letters, digits, - or _, got {prefix!r}")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = text.replace('<style type="text/css">*{', f'<style type="text/css">#{prefix} *{{')
    label = escape(" ".join(str(figure.get_label()).split()) or "figure")
    opening = f'<svg id="{prefix}" role="img" aria-label="{label}" style="max-width: 100%; height: auto" '
    return text.replace("<svg ", opening, 1)


@rc_context(rc)
def _rendered(figure: Figure, ending: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending, dpi=200, metadata=_METADATA[ending])
    return _distinct_ids(buffer.getvalue()) if ending == "svg" else buffer.getvalue()


def _distinct_ids(content: bytes) -> bytes:
    """Number repeated ids, which Matplotlib gives to pictures of equal pixels; none is referred to."""
    seen = Counter()

    def number(match: re.Match[bytes]) -> bytes:
        seen[match[1]] += 1
        return match[0] if seen[match[1]] == 1 else b'id="%s-%d"' % (match[1], seen[match[1]])

    return re.sub(rb'\bid="([^"]*)"', number, content)
