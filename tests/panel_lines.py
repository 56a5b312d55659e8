"""What the tests of panels share: reading lines off a figure."""


def panels(figure) -> dict:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def lines(axes) -> dict:
    """By label; the caps of error bars have none."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def level(axes, label: str) -> float:
    (height,) = {float(y) for y in lines(axes)[label].get_ydata()}
    return height
