"""What tiles change for a model that draws maps: probabilities, pixels, objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.segmenter import Segmenter, decode_options
from domainseg.tiling.halo import FLIP_TOLERANCE, PROBABILITY_TOLERANCE
from domainseg.tiling.sensitivity import (
    SETTING_HEADER,
    Reading,
    Sensitivity,
    Setting,
    measure_sensitivity,
)

LEAST_MPX = 4.0
FOREGROUND = (0.1, 0.6)
"""Images that the tolerances are defined on: size, and least and largest share of foreground."""
HEADER = (
    *SETTING_HEADER,
    "largest difference",
    "flipped",
    "objects",
    "changed",
    "IoU < .9",
    "within",
)


@dataclass(frozen=True, slots=True)
class MapsCompared:
    """What settings change in the maps of one image.

    Attributes:
        sensitivity: every reading.
        precision: ``fp32`` or ``bf16``, as it was run.
        blind: layers of the network that see whole windows.
    """

    sensitivity: Sensitivity
    precision: str
    blind: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every setting of the model's own tiles is within the tolerances."""
        return not self.sensitivity.beyond

    def worst(self) -> tuple[int, Setting, str, str]:
        """Return how many settings show, the worst, how far it goes, and what was wanted."""
        beyond = self.sensitivity.beyond
        worst = max(beyond, key=lambda reading: reading.difference)
        return (
            len(beyond),
            worst.setting,
            f"{worst.difference:.4f} of probability, {worst.flipped:.1e} of pixels flipped",
            f"at most {PROBABILITY_TOLERANCE} and {FLIP_TOLERANCE:.0e}",
        )

    def summary(self) -> str:
        """Return what the settings are compared with."""
        seen = self.sensitivity
        return (
            f"against one piece of {seen.shape[0]} x {seen.shape[1]} px with {seen.objects} "
            f"objects, {100 * seen.foreground:.1f} % foreground, {self.precision}"
        )

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return header and one row for each setting."""
        return HEADER, tuple(_row(reading) for reading in self.sensitivity.readings)

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        found = self.sensitivity
        return {
            "foreground": found.foreground,
            "objects": found.objects,
            "tolerance": {"difference": PROBABILITY_TOLERANCE, "flipped": FLIP_TOLERANCE},
            "readings": [_as_json(reading) for reading in found.readings],
        }

    def limits(self) -> tuple[str, ...]:
        """Return what the verdict does not cover."""
        said, found = [], self.sensitivity
        mpx = found.shape[0] * found.shape[1] / 1e6
        if mpx < LEAST_MPX:
            said.append(
                f"the tolerances are defined on images of {LEAST_MPX:.0f} Mpx and more, this one "
                f"has {mpx:.2g}"
            )
        if not FOREGROUND[0] <= found.foreground <= FOREGROUND[1]:
            low, high = (f"{100 * share:.0f}" for share in FOREGROUND)
            said.append(
                f"the tolerances are defined on {low} to {high} % foreground, here it is "
                f"{100 * found.foreground:.3g} %"
            )
        if self.blind:
            said.append(
                f"{len(self.blind)} layers of the network see whole windows, {self.blind[0]} the "
                "first"
            )
        return tuple(said)


def compare_maps(
    segmenter: Segmenter,
    pixels: NDArray[np.float32],
    settings: Sequence[Setting],
    *,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> MapsCompared:
    """Return what each setting changes in the maps of ``(C, H, W)``."""
    found = measure_sensitivity(
        segmenter.make_maps,
        pixels,
        settings,
        lattice=segmenter.lattice,
        options=decode_options(segmenter.recipe, segmenter.classes),
        tell=tell,
    )
    return MapsCompared(found, segmenter.engine.precision, segmenter.whole_window_layers)


def _row(reading: Reading) -> tuple[str, ...]:
    verdict = ("yes" if reading.within else "NO") if reading.setting.judged else "-"
    return (
        *reading.setting.columns(),
        f"{reading.difference:.4f}",
        f"{reading.flipped:.1e}",
        str(reading.objects),
        str(reading.changed),
        str(reading.changed_much),
        verdict,
    )


def _as_json(reading: Reading) -> dict[str, Any]:
    return {
        **reading.setting.to_json(),
        "difference": reading.difference,
        "flipped": reading.flipped,
        "objects": reading.objects,
        "changed": reading.changed,
        "changed_much": reading.changed_much,
        "within": reading.within if reading.setting.judged else None,
    }
