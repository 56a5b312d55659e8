"""Figures of many panels: their layout, titles, shared labels and shared legend."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from innerloop.figures.axes import in_columns, settle
from innerloop.figures.style import WIDE, WIDTH, Look, looks, method_key
from innerloop.figures.table import checked_level
from innerloop.tasks import Categorical, Fixed, NoiseLaw, Uniform, parse_noise

_SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
_LOW, _HIGH = 1.55, 2.1  # inches a panel, with its title and tick labels


def grid(names: Sequence[str], *, columns: int, title: str, x: str, y: str) -> tuple[Figure, dict[str, Axes]]:
    """An empty figure with a panel a name, row by row, `columns` at most in a row, and labels for all.

    Raises:
        ValueError: `columns` is not positive.
    """
    if columns < 1:
        raise ValueError(f"columns must be >= 1, got {columns}")
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    width, height = (WIDE, _LOW) if columns > 3 else (WIDTH, _HIGH)
    figure = Figure(figsize=(width, height * rows + 0.25), layout="constrained")
    figure.set_label(title)
    if title:
        figure.suptitle(textwrap.fill(title, 90), x=0.01, ha="left")
    cells = [cell for row in figure.subplots(rows, columns, squeeze=False) for cell in row]
    for blank in cells[len(names) :]:
        blank.remove()
    panels = dict(zip(names, cells, strict=False))
    for name, axes in panels.items():
        axes.set_title(spelt(name), fontsize=8.5, pad=4)
    figure.supxlabel(x)
    figure.supylabel(y)
    return figure, panels


def finish(
    figure: Figure, panels: Mapping[str, Axes], handles: Sequence[Artist], last: Sequence[Artist] = ()
) -> Figure:
    """The legend, in the blank cells of the last row if it fits there or else below all; and the layout fixed."""
    cells = list(panels.values())
    columns = cells[0].get_gridspec().ncols  # pyright: ignore[reportOptionalMemberAccess]
    blank = -len(cells) % columns
    if not (blank and len(cells) > columns and _in_blank_cells(figure, cells, columns, handles, last)):
        _below(figure, handles, last)
    return settle(figure)


def known_first(found: Mapping[str, Look]) -> list[Look]:
    """Looks in a legend's order: methods with a look of their own, then the rest."""
    return [found[name] for name in sorted(found, key=lambda name: method_key(name) is None)]


def spelt(name: str) -> str:
    """What a reader is shown for the text of a noise law, a method's name, or any other text."""
    if method_key(name):
        return looks([name])[name].label
    try:
        law = parse_noise(name)
    except ValueError:
        return name
    if isinstance(law, Uniform):
        return f"{_SIGMA} ~ U({law.low:g}, {law.high:g})"
    if isinstance(law, Categorical):
        return f"{_SIGMA} \N{ELEMENT OF} {{{', '.join(f'{level:g}' for level in sorted(law.values))}}}"
    return f"{_SIGMA} = {law.sigma:g}" if isinstance(law, Fixed) else str(law)


def laws(
    panels: Sequence[str], given: Mapping[str, NoiseLaw | str] | NoiseLaw | str | None
) -> dict[str, NoiseLaw]:
    """The noise law of each panel: `given` for all, or by panel; otherwise the panel's name is the law.

    Raises:
        ValueError: a law cannot be read, or a key of `given` is no panel.
    """
    if isinstance(given, NoiseLaw | str):
        given = dict.fromkeys(panels, given)
    given = _of_panels("in_distribution", given or {}, panels)
    found = {name: given.get(name, name) for name in panels}
    return {name: law if isinstance(law, NoiseLaw) else parse_noise(law) for name, law in found.items()}


def floors(panels: Sequence[str], given: Mapping[str, float] | float) -> dict[str, float]:
    """The Bayes floor of each panel: `given` for all, or by panel.

    Raises:
        ValueError: a panel has no floor, a key of `given` is no panel, or a floor is negative or not finite.
    """
    if not isinstance(given, Mapping):
        given = dict.fromkeys(panels, given)
    given = _of_panels("floor", given, panels)
    for name in panels:
        if name not in given:
            raise ValueError(f"every panel needs a floor, got none for {name!r}")
    return {name: checked_level("floor", given[name]) for name in panels}


def _of_panels(what: str, given: Mapping, panels: Sequence[str]) -> Mapping:
    for name in given:
        if name not in panels:
            raise ValueError(f"{what} must be given for panels ({', '.join(panels)}), got {name!r}")
    return given


def _in_blank_cells(
    figure: Figure, cells: list[Axes], columns: int, handles: Sequence[Artist], last: Sequence[Artist]
) -> bool:
    """Put the legend right of the last panel, below those above, if it fits; tell whether it did."""
    figure.draw_without_rendering()  # places are known once the layout is done
    above, corner, beside = (
        cells[place].get_position() for place in (len(cells) - columns, columns - 1, len(cells) - 1)
    )
    left, bottom, width, height = above.x0, beside.y0, corner.x1 - above.x0, beside.height
    room = (width * figure.get_figwidth() * figure.dpi, height * figure.get_figheight() * figure.dpi)
    blank = Line2D([], [], linestyle="none", label=" ")
    rows = max(len(handles), len(last))
    side_by_side = [*handles, *[blank] * (rows - len(handles)), *last, *[blank] * (rows - len(last))]
    for count, filled in [(1, [*handles, *last]), (2, side_by_side if last else handles)]:
        found = figure.legend(
            handles=filled,
            loc="center left",
            bbox_to_anchor=(left, bottom, width, height),
            ncols=count,
            borderpad=0,
        )
        size = found.get_window_extent(_renderer(figure))
        if size.width <= room[0] and size.height <= room[1] * 1.15:
            return True
        found.remove()
    return False


def _below(figure: Figure, handles: Sequence[Artist], last: Sequence[Artist]) -> None:
    """The legend below the label of the horizontal axes, in a figure made taller for it.

    Matplotlib's own "outside" would put it onto that label.
    """
    filled, columns = in_columns(figure, handles, last)
    found = figure.legend(handles=filled, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=columns)
    legend, label = found.get_window_extent(_renderer(figure)).height * 72 / figure.dpi, 14  # points
    figure.set_figheight(figure.get_figheight() + (legend + label) / 72)
    total = figure.get_figheight() * 72
    figure.supxlabel(figure.get_supxlabel(), y=(legend + 4) / total)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    bottom = (legend + label) / total  # a label that has been placed is not laid out
    engine.set(rect=(0, bottom, 1, 1 - bottom))


def _renderer(figure: Figure):
    """What measures text before anything is drawn."""
    return figure._get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
