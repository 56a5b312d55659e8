"""Equations as MathML, made when the site is built: a page needs no script and no font for them."""

import html
import re

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves behind in its generic mode.
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_) -> str:
    """MkDocs calls this with each page's HTML."""
    return _EQUATION.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    return convert(html.unescape(match[2]), display="inline" if match[1] == "span" else "block")
