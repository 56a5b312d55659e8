"""Our numbers beside published ones: what rounding leaves of a difference, and how a number is printed."""

import math
from decimal import Decimal, InvalidOperation
from typing import Literal

Verdict = Literal["better", "tie", "worse"]

_ZERO = 1e-15  # what double precision makes of a loss that is 0
_SMALL = 1e-4  # below, numbers are printed with an exponent


def verdict(value: float, standard_error: float | None, published: str | float) -> Verdict:
    """Whether a loss is better than a published one, as far as rounding and sampling let anyone tell.

    A tie is |value - published| <= rounding + 2 standard_error. The published number's own sampling error is
    not known and not allowed for.

    Args:
        value: the loss; infinity is worse than anything.
        standard_error: of `value`; None if there is none.
        published: the number as it is printed, "0.040"; a number instead is taken as exact.

    Raises:
        ValueError: `value` is NaN, or `published` is not a number.
    """
    if math.isnan(value):
        raise ValueError("value must be a number, got nan")
    margin = (rounding(published) if isinstance(published, str) else 0.0) + 2 * (standard_error or 0.0)
    difference = value - float(published)
    # Relative to the margin, so that a difference of exactly it is a tie in floating point too.
    if abs(difference) <= margin * (1 + 1e-9):
        return "tie"
    return "better" if difference < 0 else "worse"


def rounding(printed: str) -> float:
    """Half a unit in the last printed place: 0.0005 for "0.040", 5e-15 for "2.50e-12".

    A plain "0" is a loss that is 0 exactly, up to the errors of double precision.

    Raises:
        ValueError: `printed` is not a finite number.
    """
    try:
        exponent = Decimal(printed).as_tuple().exponent
    except InvalidOperation:
        exponent = "n"
    if not isinstance(exponent, int):
        raise ValueError(f"a published number must be finite and printed in full, got {printed!r}")
    if printed.strip() == "0":
        return _ZERO
    return 0.5 * 10.0**exponent


def printed(value: float, standard_error: float | None) -> tuple[str, str, str]:
    """Value, standard error and power of ten with matching digits: ("0.0445", "0.0003", ""), ("2.50", "0.12", "-12").

    The standard error has one digit, or two if the first is a 1; the value ends at the same place. Without a
    standard error the value has three digits, and the error is "". Numbers below 1e-4 have a power of ten.
    """
    if not math.isfinite(value):
        return "\N{INFINITY}", "", ""
    if value == 0 and not standard_error:
        return "0", "", ""
    if standard_error and not math.isfinite(standard_error):
        raise ValueError(f"standard_error must be finite, got {standard_error}")
    last = _last_place(standard_error) if standard_error else _order(value) - 2
    size = max(abs(value), standard_error or 0.0)
    power = _order(size) if size < _SMALL else 0
    places = max(power - last, 0)
    scale = 10.0**-power
    error = f"{standard_error * scale:.{places}f}" if standard_error else ""
    return f"{value * scale:.{places}f}", error, str(power) if power else ""


def _last_place(error: float) -> int:
    """The power of ten of the last digit that is kept of a standard error."""
    first = _order(error)
    digits = float(f"{error * 10.0**-first:.1f}")
    if digits >= 10:
        first, digits = first + 1, 1.0
    return first - 1 if digits < 2 else first


def _order(value: float) -> int:
    """The power of ten of the first digit."""
    return int(f"{abs(value):e}".split("e")[1])
