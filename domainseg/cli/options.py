"""Options that several verbs take, and what their words mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from domainseg.errors import UsageError, sentence

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]
Select = Annotated[list[str] | None, typer.Option(help="How to read a stack, as z=max or t=0.")]
SpacingUm = Annotated[float | None, typer.Option(help="Pixel size of the images.")]
DiameterPx = Annotated[float | None, typer.Option(help="Median object diameter.")]

DiameterOrAuto = Annotated[
    str | None,
    typer.Option(metavar="PX", help="Median object diameter, or auto: measured on each image."),
]
AUTO = "auto"


def diameter_of(text: str | None) -> float | None:
    """Return the number of px that was given, None for nothing and for ``auto``.

    Raises:
        UsageError: for anything else.
    """
    if text is None or text == AUTO:
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            sentence(
                "--diameter-px", found=f"'{text}'", wanted="a number or auto", fix="correct it"
            )
        ) from None


def selection(pairs: Sequence[str] | None) -> dict[str, object] | None:
    """Return ``z=max t=0 channel=DAPI,GFP`` as a selection; whole numbers are indices.

    Raises:
        UsageError: for a pair that is none.
    """
    if not pairs:
        return None
    chosen: dict[str, object] = {}
    for pair in pairs:
        axis, equals, value = pair.partition("=")
        if not (axis and equals and value):
            raise UsageError(
                sentence(
                    "--select", found=f"'{pair}'", wanted="AXIS=VALUE", fix="write z=max or t=0"
                )
            )
        parts: list[object] = [int(v) if v.lstrip("-").isdigit() else v for v in value.split(",")]
        chosen[axis] = parts if len(parts) > 1 else parts[0]
    return chosen
