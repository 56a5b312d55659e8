"""How every figure looks: Matplotlib settings, and one fixed colour, marker and line a method.

Colours are those of Okabe and Ito (2008), told apart with every common form of colour blindness. Their yellow
is left out (on white it cannot be read) and a grey takes its place. One model at two or three depths has
shades of its colour. At more, and for unknown names, the colours are viridis in the order of appearance: an
order of lightness too, which survives a black-and-white print.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib import rcParamsDefault
from matplotlib.colors import to_hex, to_rgb

WIDTH = 6.0  # inches; a page's text width
WIDE = 7.0  # of figures with many panels
HEIGHT = 3.9

_OURS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with Matplotlib, so that the bytes are the same everywhere
    "mathtext.fontset": "dejavusans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 9,
    "figure.titleweight": "normal",
    "figure.labelsize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.86",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.4,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "innerloop",
}

# From the defaults up, so that a user's own matplotlibrc cannot move a figure; windows are left alone.
_WINDOWS = ("backend", "interactive", "toolbar", "webagg", "tk.")
rc: dict[Any, Any] = {
    key: value for key, value in rcParamsDefault.items() if not key.startswith(_WINDOWS)
} | _OURS


@dataclass(frozen=True)
class Look:
    """A method's name in legends, its colour, its marker and its line."""

    label: str
    colour: str
    marker: str
    dash: str | tuple = "-"

    @property
    def ink(self) -> str:
        """The colour, darkened until text in it can be read on white."""
        return _blend(self.colour, 0.0, 0.3)


METHODS = {
    "full": Look("FULL", "#0072B2", "o"),
    "full two heads": Look("FULL (two heads)", "#332288", "p"),
    "diag": Look("DIAG (one head)", "#D55E00", "s"),
    "diag free": Look("DIAG (free)", "#E69F00", "D"),
    "gd++": Look("GD++", "#009E73", "^"),
    "softmax": Look("softmax attention", "#882255", "<"),
    "linear": Look("linear attention", "#117733", ">"),
    "hybrid by layer": Look("hybrid by layer", "#DDAA33", "H", (0, (6, 1.2))),
    "hybrid by head": Look("hybrid by head", "#4477AA", "8", (0, (3, 1))),
    "constrr": Look("ConstRR", "#8C8C8C", "v", (0, (1, 1.2))),
    "adarr": Look("AdaRR", "#CC79A7", "P", (0, (5, 1.5, 1, 1.5))),
    "tunedrr": Look("TunedRR", "#56B4E9", "X", (0, (5, 1.2, 1, 1.2, 1, 1.2))),
    "bayes": Look("Bayes-optimal", "#000000", "*"),
    "oracle": Look("oracle (knows \N{GREEK SMALL LETTER SIGMA})", "#4D4D4D", "d", (0, (3, 1.2))),
    "published": Look("published", "#5E4B3C", "h", (0, (4, 2))),
}

FLOOR = Look("Bayes floor", METHODS["bayes"].colour, METHODS["bayes"].marker)

_ALIASES = {
    "diagonehead": "diag",
    "diag1head": "diag",
    "diagfree": "diag free",
    "diagtwoheads": "diag free",
    "diag2heads": "diag free",
    "fulltwoheads": "full two heads",
    "full2heads": "full two heads",
    "gdplusplus": "gd++",
    "hybridbylayer": "hybrid by layer",
    "hybridbyhead": "hybrid by head",
    "floor": "bayes",
    "bayesfloor": "bayes",
    "bayesoptimal": "bayes",
    "ridgeoracle": "oracle",
}
_MARKERS = "osD^vPXh<>pd"


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """The look of each of `methods`, all of different colours.

    A name is one of `METHODS`, whatever its case and punctuation ("DIAG (one head)", "bayes-optimal"), with
    or without details after a comma ("full, 7 layers"). A method that comes with one set of details only
    keeps its fixed look; with two or three it has shades of its colour, lighter first; the rest is viridis
    with a cycle of markers.

    Raises:
        ValueError: two names mean the same.
    """
    parts = {name: _split(name) for name in methods}
    if len(set(parts.values())) < len(parts):
        counts = Counter(parts.values())
        same = [repr(name) for name, part in parts.items() if counts[part] > 1]
        raise ValueError(f"every method needs a name of its own, got {', '.join(same)} for the same")
    family = {key: [name for name in parts if parts[name][0] == key] for key, _ in parts.values() if key}
    other = [name for name, (key, _) in parts.items() if key is None or len(family[key]) > 3]
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(other)))
    found = {}
    for name, (key, details) in parts.items():
        look = METHODS[key] if key else Look("", "", "")  # its details are its name
        if name in other:
            place = other.index(name)
            look = Look(look.label, to_hex(shades[place]), _MARKERS[place % len(_MARKERS)])
        elif key and len(family[key]) > 1:
            toward, amount = [(1.0, 0.5), (0.0, 0.0), (0.0, 0.55)][family[key].index(name)]
            look = replace(look, colour=_blend(look.colour, toward, amount))
        found[name] = replace(look, label=look.label + details)
    return found


def relabelled(look: Look, label: str) -> Look:
    """The same look under another name."""
    return replace(look, label=label)


def method_key(name: str) -> str | None:
    """The name's key in `METHODS`, details after a comma left out; None for an unknown name."""
    return _split(name)[0]


def is_floor(name: str) -> bool:
    """Whether a row of results is the Bayes floor: "floor" or "Bayes floor", not the predictor that reaches it."""
    return re.sub(r"[^a-z]", "", name.lower()) in ("floor", "bayesfloor")


def _split(name: str) -> tuple[str | None, str]:
    """A name's key in `METHODS` and its details, comma included; or None and all of an unknown name."""
    head, comma, tail = name.partition(",")
    for text, details in [(name, ""), (head, comma + tail)]:
        plain = re.sub(r"[^a-z0-9+]", "", text.lower())
        key = _ALIASES.get(plain, plain)
        if key in METHODS:
            return key, details
    return None, name


def _blend(colour: str, toward: float, amount: float) -> str:
    """The colour mixed with a grey, 0 (black) to 1 (white)."""
    red, green, blue = ((1 - amount) * part + amount * toward for part in to_rgb(colour))
    return to_hex((red, green, blue))
