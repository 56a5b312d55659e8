"""Numbers that JSON cannot say."""

import math


def without_nan(value):
    """`value` with NaN and infinities, in whatever mappings and lists they are, as None."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
