"""How an image looks, in eight numbers; whether it looks like those a model was trained on.

All are of the image as a network sees it, in [0, 1]; grey is the mean of the channels:

- *level*: mean of grey;
- *spread*: standard deviation of grey;
- *skew*: mean less median of grey, over its standard deviation: below 0 where objects are
  darker than their surroundings;
- *black*, *white*: share of pixels at 0, and at 1, where an intensity was cut off;
- *colour*: mean difference between the largest and the smallest channel;
- *noise*: standard deviation of the noise (Immerkaer, Computer Vision and Image Understanding
  64(2), 1996);
- *grain*: logarithm of the mean step between neighbouring pixels over that between squares of
  4 x 4 pixels: the smaller, the smoother the image.

An image is unlike a set of images where its nearest neighbour among them, each number over its
standard deviation in the set, is further away than that of all but `ALARMS` of them from the
rest. Nothing is learned of objects: it is about intensities, colour and sharpness only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve
from scipy.spatial import KDTree

from domainseg.images.windows import Window, spread_windows
from domainseg.records import Plane

FEATURES = ("level", "spread", "skew", "black", "white", "colour", "noise", "grain")
"""Names of the numbers, in their order."""
INVERTED = "inverted"
ONE_VALUE = "one value"
"""Causes that are no number of an image."""
WINDOW_PX = 256
MOST_WINDOWS = 16
"""Of a larger image as many windows are looked at, evenly spread."""
MOST_IMAGES = 512
"""As many images of a set are remembered, evenly spread."""
ALARMS = 0.02
"""Share of a set's own images that are unlike the rest."""
FEWEST = 20
"""Images that a set must have for anything to be unlike it."""
LEAST_SCALE = 0.01
"""Of a number that hardly differs within a set, so that a trifle is no alarm."""
LEAST_LIMIT = 0.5
"""Of the distance, where a set's images are copies of each other."""
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_EPSILON = 1e-4

Floats = NDArray[np.float64]


def appearance(plane: Plane, places: Iterable[Window] | None = None) -> Floats:
    """Return the numbers `FEATURES`, float64 ``(8,)``, of an image ``(C, H, W)`` in [0, 1].

    ``places`` are the windows to look at, by default evenly spread ones.
    """
    if places is None:
        places = spread_windows(plane.shape[1:], most=MOST_WINDOWS, side=WINDOW_PX)
    parts = [np.asarray(plane[:, rows, columns], np.float32) for rows, columns in places]
    grey = np.concatenate([part.mean(0).ravel() for part in parts])
    spread = float(grey.std())
    colour = np.concatenate([np.ptp(part, axis=0).ravel() for part in parts])
    return np.array(
        [
            grey.mean(),
            spread,
            (grey.mean() - np.median(grey)) / max(spread, _EPSILON),
            np.mean([(part <= 0).mean() for part in parts]),
            np.mean([(part >= 1).mean() for part in parts]),
            colour.mean(),
            np.mean([_noise(part.mean(0)) for part in parts]),
            np.mean([_grain(part.mean(0)) for part in parts]),
        ],
        np.float64,
    )


_WORDS = {
    "level": ("it is brighter", "it is darker"),
    "spread": ("its contrast is higher", "its contrast is lower"),
    "skew": ("more of it is dark ground", "more of it is bright ground"),
    "black": ("more of it has the lowest value", "less of it has the lowest value"),
    "white": (
        "more of it has the highest value, as after overexposure",
        "less of it has the highest value",
    ),
    "colour": ("it has more colour", "it has less colour"),
    "noise": ("it has more noise", "it has less noise"),
    "grain": ("it is rougher, as with noise", "it is smoother, as out of focus"),
}
"""What is said where a number is above, and below, that of the nearest image."""


@dataclass(frozen=True, slots=True)
class Unlike:
    """Why an image is not like those of a set.

    Attributes:
        cause: the number that is furthest from that of the nearest image of the set; `INVERTED`
            where the negative is like the set, and `ONE_VALUE`.
        value: of the image; of `INVERTED` its distance, of `ONE_VALUE` 0.
        nearest: of the nearest image of the set; of `INVERTED` the distance of the negative.
        distance: to that image, in standard deviations.
        limit: distance from which on an image is unlike.
    """

    cause: str
    value: float
    nearest: float
    distance: float
    limit: float

    def text(self) -> str:
        """Return what is said of it, without a full stop."""
        apart = f"distance {self.distance:.1f}, limit {self.limit:.1f}"
        if self.cause == ONE_VALUE:
            why, fix = "it has one value wherever it was looked at", "check the file"
        elif self.cause == INVERTED:
            why = f"it looks inverted ({apart}, of its negative {self.nearest:.1f})"
            fix = "invert it and predict that"
        else:
            above, below = _WORDS[self.cause]
            numbers = f"{self.cause} {self.value:.2g}, of the nearest {self.nearest:.2g}; {apart}"
            why = f"{above if self.value > self.nearest else below} ({numbers})"
            fix = "look at the overlay"
        return f"the image looks unlike those that the model was trained on: {why}; {fix}"


@dataclass(frozen=True, slots=True)
class Looks:
    """How the images of a set look.

    Attributes:
        values: float64 ``(N, 8)``, a row an image.
        scale: float64 ``(8,)``, standard deviation of each number.
        limit: distance, in standard deviations, from which on an image is unlike these.
    """

    values: Floats
    scale: Floats
    limit: float

    @classmethod
    def of(cls, rows: Sequence[Floats], kinds: Sequence[str | None] = ()) -> Self | None:
        """Return how images with these numbers look, None of fewer than `FEWEST`.

        Deviations are those within a kind, where ``kinds`` names that of each image.
        """
        if len(rows) < FEWEST:
            return None
        count = min(len(rows), MOST_IMAGES)
        chosen = [i * len(rows) // count for i in range(count)]
        values = np.round(np.stack([rows[i] for i in chosen]), 5).astype(np.float64)
        named = np.array([str(kinds[i]) if kinds else "" for i in chosen])
        inner = values.astype(np.float64)
        for kind in np.unique(named):
            inner[named == kind] -= values[named == kind].mean(0)
        scale = np.maximum(inner.std(0), LEAST_SCALE).astype(np.float64)
        apart = KDTree(values / scale).query(values / scale, k=2)[0][:, 1]
        limit = max(LEAST_LIMIT, float(np.quantile(apart, 1 - ALARMS)))
        return cls(values, scale, limit)

    def unlike(self, numbers: Floats) -> Unlike | None:
        """Return why an image with these ``(8,)`` numbers is unlike the set; None where it is not.

        A number that is not finite is as far away as can be.
        """
        numbers = np.nan_to_num(numbers, nan=1e6, posinf=1e6, neginf=-1e6)
        distance, nearest = self._nearest(numbers)
        if distance <= self.limit:
            return None
        if numbers[FEATURES.index("spread")] < _EPSILON:
            return Unlike(ONE_VALUE, 0.0, 0.0, distance, self.limit)
        turned, _ = self._nearest(_negative(numbers))
        if turned <= self.limit:
            return Unlike(INVERTED, distance, turned, distance, self.limit)
        beside = self.values[nearest]
        at = int((np.abs(numbers - beside) / self.scale).argmax())
        return Unlike(FEATURES[at], float(numbers[at]), float(beside[at]), distance, self.limit)

    def _nearest(self, numbers: Floats) -> tuple[float, int]:
        """Return the distance of an image to the nearest of the set, and which that is."""
        distance, nearest = KDTree(self.values / self.scale).query(numbers / self.scale)
        return float(distance), int(nearest)

    def to_json(self) -> dict[str, Any]:
        """Return the set as plain values."""
        return {
            "features": list(FEATURES),
            "values": self.values.tolist(),
            "scale": self.scale.tolist(),
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self | None:
        """Return the set of `to_json`, None where other numbers were measured."""
        if tuple(values.get("features", ())) != FEATURES:
            return None
        return cls(np.array(values["values"]), np.array(values["scale"]), float(values["limit"]))


def _negative(numbers: Floats) -> Floats:
    """Return the numbers of an image's negative."""
    level, spread, skew, black, white, *others = numbers
    return np.array([1 - level, spread, -skew, white, black, *others])


def _noise(grey: NDArray[np.float32]) -> float:
    if min(grey.shape) < 3:
        return 0.0
    made = np.abs(convolve(grey, _LAPLACIAN, mode="nearest")[1:-1, 1:-1])
    return float(np.sqrt(np.pi / 2) / 6 * made.mean())


def _grain(grey: NDArray[np.float32]) -> float:
    height, width = (size // 4 * 4 for size in grey.shape)
    if min(height, width) < 8:
        return 0.0
    coarse = grey[:height, :width].reshape(height // 4, 4, width // 4, 4).mean((1, 3))
    return float(np.log((_step(grey) + _EPSILON) / (_step(coarse) + _EPSILON)))


def _step(grey: NDArray[np.float32]) -> float:
    """Return the mean difference between neighbours."""
    return float((np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2)
