"""KLARF files opened: which version one is, and several stacked into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.quality.klarf import Klarf
from domainseg.quality.klarf_flat import read_flat
from domainseg.quality.klarf_nested import read_nested
from domainseg.quality.klarf_tokens import read_bytes, tokens_of


def read_klarf(path: Path) -> Klarf:
    """Return what a file of version 1.1, 1.2 or 1.8 says.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is too large, no KLARF, or says what cannot be; the line is named.
    """
    return _read(read_bytes(path), path)


def read_klarf_text(text: bytes, source: Path = Path("KLARF")) -> Klarf:
    """Return what a file's bytes say; ``source`` names it in messages.

    Raises:
        InputError: as `read_klarf`.
    """
    return _read(np.frombuffer(text, np.uint8), source)


def _read(text: NDArray[np.uint8], source: Path) -> Klarf:
    head = text[:4096].tobytes().lstrip()
    if head.startswith(b"Record"):
        return read_nested(tokens_of(source, text, nested=True))
    if head.startswith(b"FileVersion"):
        return read_flat(tokens_of(source, text, nested=False))
    raise InputError(
        sentence(
            f"{source}:1",
            found="neither FileVersion nor Record",
            wanted="a KLARF file",
            fix="check that this is the inspection's result file",
        )
    )


def stacked(files: Sequence[tuple[str, Klarf]]) -> Klarf:
    """Return one record of the wafers of several files of one lot; ``files`` are named.

    Raises:
        InputError: lot, die pitch, diameter or the name of a class differ, or two files hold
            the same wafer.
    """
    name, first = files[0]
    classes = dict(first.classes)
    wafers = list(first.wafers)
    owner = {wafer.name: name for wafer in wafers}
    for other_name, other in files[1:]:
        for what in ("lot", "pitch_um", "diameter_mm", "mark", "mark_degrees"):
            mine, theirs = getattr(first, what), getattr(other, what)
            if mine != theirs:
                raise _misfit(other_name, f"{what} {theirs}", f"{mine}, as in {name}")
        for number, text in other.classes.items():
            if classes.setdefault(number, text) != text:
                raise _misfit(
                    other_name, f"class {number} '{text}'", f"'{classes[number]}', as in {name}"
                )
        for wafer in other.wafers:
            if wafer.name in owner:
                raise _misfit(
                    other_name, f"wafer '{wafer.name}'", f"one that {owner[wafer.name]} lacks"
                )
            owner[wafer.name] = other_name
            wafers.append(wafer)
    return replace(first, classes=classes, wafers=tuple(wafers))


def _misfit(name: str, found: str, wanted: str) -> InputError:
    return InputError(sentence(name, found=found, wanted=wanted, fix="leave the file out"))
