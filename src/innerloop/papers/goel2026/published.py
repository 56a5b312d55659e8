"""The paper's protocol and numbers, as data."""

import copy
import json
from functools import cache
from importlib.resources import files


def published() -> dict:
    """The protocol, the printed numbers and what the public notebooks show, with their source."""
    return copy.deepcopy(_read())


@cache
def _read() -> dict:
    path = files("innerloop.papers") / "published" / "goel2026.json"
    return json.loads(path.read_text(encoding="utf-8"))
