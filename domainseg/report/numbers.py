"""Numbers as a page writes them: fixed formats, so that equal values give equal bytes."""

from __future__ import annotations

import math

from domainseg.quality.statistics import Interval
from domainseg.report.document import Form, Value

UNKNOWN = "\u2013"
"""Stands where a value is not known."""
_MINUS = "\u2212"
_SUPERSCRIPTS = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)


def written(value: Value, form: Form) -> str:
    """Return ``value`` as text in ``form``; what is None or not a number is a dash."""
    if value is None:
        return UNKNOWN
    if isinstance(value, Interval):
        return f"{written(value.low, form)} to {written(value.high, form)}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "\u221e" if value > 0 else f"{_MINUS}\u221e"
    return _number(value, form).replace("-", _MINUS)


def _number(value: float, form: Form) -> str:
    """Return a finite number with an ASCII minus."""
    match form.style:
        case "count":
            return f"{round(value):,}"
        case "fixed":
            return _without_negative_zero(f"{value:,.{form.digits}f}")
        case "significant" if isinstance(value, int):
            return f"{value:,}"  # a count is exact
        case "significant":
            return _significant(value, form.digits)
        case _:
            return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _significant(value: float, digits: int) -> str:
    """Return ``value`` rounded to significant digits, as a power of ten outside 1e-3 to 1e6."""
    if value == 0:
        return "0"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    exponent = int(power)
    if not -3 <= exponent < 6:
        return f"{mantissa} \u00d7 10{str(exponent).translate(_SUPERSCRIPTS)}"
    rounded = float(f"{mantissa}e{exponent}")
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}"


def _without_negative_zero(text: str) -> str:
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text
