"""Heat maps of a model's matrices (Vladymyrov et al. 2024, Figure 4)."""

import math
import textwrap

import numpy as np
from jaxtyping import ArrayLike
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from innerloop.figures.style import WIDTH, rc

# Inches. Maps are square and a colour bar is as high as its row, which no automatic layout promises.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.85, 0.28, 0.3
_GAP, _ROW_GAP, _BAR, _TITLE_LINE = 0.1, 0.16, 0.1, 0.17
_SMALL = 0.5  # the side of a map below which there is room for less text
_TICK_ROOM = 15  # points from one tick label to the next


@rc_context(rc)
def heat_maps(P: ArrayLike, Q: ArrayLike, *, shared: bool = False, title: str = "") -> Figure:
    """Heat maps of P and Q: a column a layer, a row a matrix and head, white for zero, one scale a row.

    With `shared` there is one scale and one colour bar for all. Every head's P and Q are then rescaled, to
    c P and Q / c with the same largest entry: c P S Q / c = P S Q, so the model is the same.

    Args:
        P: shape `(layers, heads, D, D)`; the last row and column belong to y.
        Q: of the same shape.
        shared: one scale for all maps.
        title: above all.

    Raises:
        ValueError: the shapes differ or are not `(layers, heads, D, D)` with D >= 2; a value is not finite.
    """
    p, q = _checked("P", P), _checked("Q", Q)
    if p.shape != q.shape:
        raise ValueError(f"P and Q must have one shape, got {p.shape} and {q.shape}")
    if shared:
        p, q = _balanced(p, q)
    layers, heads = p.shape[:2]
    side = min(1.3, max(0.3, (WIDTH - _LEFT - _RIGHT) / layers - _GAP))
    figure, below = _empty(layers, 2 * heads, side, title)
    stacks = [(name, m, head) for name, m in [("P", p), ("Q", q)] for head in range(heads)]
    limits = [float(np.abs(m[:, head]).max()) or 1.0 for _, m, head in stacks]
    for row, (name, matrix, head) in enumerate(stacks):
        boxes = [(_LEFT + layer * (side + _GAP), below[row], side, side) for layer in range(layers)]
        maps = [_axes(figure, box) for box in boxes]
        _draw_row(maps, matrix[:, head], max(limits) if shared else limits[row], last=row == 2 * heads - 1)
        maps[0].set_ylabel(f"${name}$" if heads == 1 else f"${name}$, head {head + 1}", labelpad=4)
        if row == 0:
            for layer, axes in enumerate(maps, start=1):
                name_of_layer = f"layer {layer}" if side > _SMALL else f"{layer}"
                axes.set_title(name_of_layer, loc="center", fontsize=8.5, pad=4)
        if not shared or row == 2 * heads - 1:
            height = below[0] - below[-1] + side if shared else side
            bar = _axes(figure, (_LEFT + layers * (side + _GAP), below[row], _BAR, height))
            _draw_bar(maps[0], bar, "entry ($P$, $Q$ at equal maxima)" if shared else f"entry of ${name}$")
    return figure


def _empty(layers: int, rows: int, side: float, title: str) -> tuple[Figure, list[float]]:
    """A figure with its title, and the height in inches at which each row of maps begins."""
    width = max(2.6, _LEFT + (side + _GAP) * layers + _RIGHT)
    lines = textwrap.wrap(title, int(12.5 * width))
    top = _TOP + _TITLE_LINE * len(lines)
    height = top + (side + _ROW_GAP) * rows - _ROW_GAP + _BOTTOM
    figure = Figure(figsize=(width, height))
    figure.set_label(title)
    figure.text(0.08 / width, 1 - 0.07 / height, "\n".join(lines), va="top", fontsize=rc["figure.titlesize"])
    return figure, [height - top - side - row * (side + _ROW_GAP) for row in range(rows)]


def _axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """New axes at left, bottom, width and height in inches."""
    across, up = figure.get_size_inches()
    x, y, width, height = box
    return figure.add_axes((x / across, y / up, width / across, height / up))


def _balanced(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every head's P and Q, `(layers, heads, D, D)`, rescaled to one largest entry; an idle head's as they are."""
    largest_p, largest_q = (np.abs(each).max(axis=(2, 3), keepdims=True) for each in (p, q))
    idle = (largest_p == 0) | (largest_q == 0)
    ratio = np.sqrt(np.where(idle, 1, largest_q) / np.where(idle, 1, largest_p))
    return p * ratio, q / ratio


def _draw_row(maps: list[Axes], stack: np.ndarray, limit: float, *, last: bool) -> None:
    """All layers of one matrix and head, `(layers, D, D)`, with colours from -limit to limit."""
    side = float(maps[0].get_window_extent().height / maps[0].figure.dpi)
    for axes, matrix in zip(maps, stack, strict=True):
        # "nearest" resamples at the file's resolution; "none" would leave it to viewers, and many blur.
        axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.grid(False)
        axes.spines[:].set_visible(True)
        for line in (axes.axhline, axes.axvline):
            line(matrix.shape[0] - 1.5, color="0.6", linewidth=0.5)
        first = axes is maps[0]
        _coordinate_ticks(axes, matrix.shape[0], left=first, below=last and (first or side > _SMALL))


def _draw_bar(axes: Axes, bar: Axes, label: str) -> None:
    """The colour bar of the maps that are coloured as in `axes`."""
    image = axes.images[0]
    colorbar = bar.figure.colorbar(image, cax=bar)
    limit = image.get_clim()[1]
    digit = 10.0 ** math.floor(math.log10(limit))
    ticks = np.array([-1, 0, 1]) * math.floor(limit / digit * (1 + 1e-9)) * digit
    colorbar.set_ticks(
        ticks.tolist(), labels=[f"{tick:g}".replace("-", "\N{MINUS SIGN}", 1) for tick in ticks]
    )
    bar.spines[:].set_linewidth(0.5)
    bar.tick_params(length=2)
    if bar.get_window_extent().height / bar.figure.dpi > 1.5 * _SMALL:
        bar.set_ylabel(label, fontsize=8)
        bar.yaxis.set_label_coords(6.2, 0.5)


def _coordinate_ticks(axes: Axes, D: int, *, left: bool, below: bool) -> None:
    """y, and as many of x1 .. xd as have room."""
    pitch = axes.get_window_extent().width * 72 / axes.figure.dpi / D  # points a cell
    stride = max(1, -(-(D - 1) // 4), math.ceil(_TICK_ROOM / pitch))
    shown = [cell for cell in range(0, D - 1, stride) if (D - 1 - cell) * pitch >= 0.85 * _TICK_ROOM]
    names = [f"$x_{{{cell + 1}}}$" for cell in shown] + ["$y$"]
    blank = [""] * len(names)
    axes.set_xticks([*shown, D - 1], names if below else blank)
    axes.set_yticks([*shown, D - 1], names if left else blank)
    axes.tick_params(length=2)


def _checked(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 4 or array.shape[2] != array.shape[3] or array.shape[2] < 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape (layers, heads, D, D) with D >= 2, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array
