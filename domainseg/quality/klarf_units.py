"""Lengths of result files in other units, without a digit lost on the way."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

MM_NM, UM_NM, UM2_NM2 = 6, 3, 6
"""Powers of ten from nanometres to millimetres, micrometres, square micrometres."""


def to_larger_unit(values: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    """Return values over 10**power: the float nearest to the decimal number that was written.

    A whole number below 2**53 over a power of ten is that already; others go through decimal
    arithmetic, so that what was written with up to 15 digits comes back the same.
    """
    return _shifted(values, -power)


def to_smaller_unit(values: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    """Return values times 10**power, likewise; what is whole then is exactly whole."""
    return _shifted(values, power)


def _shifted(values: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    values = np.asarray(values, float)
    if power == 0:
        return values.copy()
    whole = (np.abs(values) < 2**53) & (values == np.floor(values))
    if power < 0:
        out = values / 10.0**-power
        exact = whole
    else:
        near = np.rint(values * 10.0**power)
        # The whole number that gives back the value is what was meant.
        exact = (np.abs(near) < 2**53) & (near / 10.0**power == values)
        out = near
    for i in np.flatnonzero(~exact & np.isfinite(values)).tolist():
        out[i] = float(Decimal(repr(float(values[i]))).scaleb(power))
    out[~np.isfinite(values)] = values[~np.isfinite(values)]
    return out
