"""The pictures of docs/made-up-wafers.md, its timings, and made-up wafers beside real images.

    python benchmarks/made_up_wafers.py OUT                    classes, levels, spacings, wafers
    python benchmarks/made_up_wafers.py OUT --beside FOLDER    real.png: with images of FOLDER
    python benchmarks/made_up_wafers.py --time                 prints what an image costs

Everything is drawn from fixed seeds, so the pictures are the same every time.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from domainseg.images import open_image
from domainseg.loaders.wafer_look import CLASSES, LAWS, DefectClass, WaferLook
from domainseg.loaders.wafer_plane import WaferPlane
from domainseg.loaders.wafers import Wafers
from domainseg.records import Array

INSIDE = (300.3, 12_345.1)
BUSY = (300.3, 20_337.1)
"""Centres of the wafer in px: fields well inside it, the second with many blocks."""
LEVELS = (1.5, 2.0, 3.0, 5.0)
ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def whole(law: Any, spacing_um: float = 50.0) -> Wafers:
    """Return whole wafers with defects that are seen from afar."""
    return Wafers(
        view="wafer",
        spacing_um=spacing_um,
        die_um=(12_000.0, 10_000.0),
        street_um=200.0,
        line_um=20.0,
        classes=("particle", "scratch", "residue", "edge_chip"),
        particle_um=(300.0, 1500.0),
        scratch_um=(5_000.0, 200_000.0),
        scratch_width_um=(100.0, 300.0),
        residue_um=(1_000.0, 9_000.0),
        chip_um=(500.0, 6_000.0),
        density_per_cm2=0.3,
        contrast_to_noise=(4.0, 9.0),
        placement=(law,),
        stray=0.15,
        good=0.0,
    )


def example(name: DefectClass, seed: int) -> tuple[Array, Array] | None:
    """Return an 80 px window about a defect and its mask, or None where it is not in the middle."""
    places = ((2020.0, 2420.0), (100.0, 100.0 - 300_000.0))
    center = places[seed % 2] if name == "edge_chip" else INSIDE
    look = WaferLook(classes=(name,), residue_um=(20.0, 30.0))
    plane = WaferPlane(
        look, seed, (200, 200), center, circuit=seed, count=1, contrast_to_noise=(6.0, 6.0)
    )
    image, labels = plane.region(0, 200, 0, 200)
    y, x = (int(where.mean()) if len(where) else 0 for where in np.nonzero(labels))
    if not 40 <= min(y, x) <= max(y, x) < 160:
        return None
    window = (slice(y - 40, y + 40), slice(x - 40, x + 40))
    return image[0][window], labels[window] > 0


def classes() -> Array:
    """Return two examples of every class, each with its mask."""
    cells = []
    for name in CLASSES:
        found = (example(name, seed) for seed in range(400))
        pairs = list(islice((pair for pair in found if pair is not None), 2))
        parts = [part for image, mask in pairs for part in (image, np.where(mask, 230, 40))]
        cells.append(named(np.concatenate(parts, 1), name))
    return np.concatenate([np.concatenate(cells[:4]), np.concatenate(cells[4:])], 1)


def levels() -> Array:
    """Return one field with the same defects at each contrast to noise, and their truth."""
    look = WaferLook(residue_um=(20.0, 40.0))
    rows = []
    for level in LEVELS:
        plane = WaferPlane(
            look, 3, (140, 420), BUSY, circuit=8, count=9, contrast_to_noise=(level, level)
        )
        image, labels = plane.region(0, 140, 0, 420)
        rows.append(named(image[0], f"contrast to noise {level:g}"))
    return np.concatenate([*rows, named(np.where(labels > 0, 230, 40), "truth")])


def spacings() -> Array:
    """Return the same kind of wafer at four pixel sizes."""
    cells = []
    for spacing in (0.1, 0.5, 1.0, 2.5):
        options = Wafers(
            spacing_um=spacing, good=0.0, height=250, width=250, contrast_to_noise=(4.0, 6.0),
            field_at=("die_edge",) if spacing >= 1 else ("anywhere",), defects=(3, 5),
        )  # fmt: skip
        image = options.plane(options.entry("train", 7))[0]
        cells.append(named(image, f"{spacing:g} um a pixel"))
    return np.concatenate([np.concatenate(cells[:2], 1), np.concatenate(cells[2:], 1)])


def wafers() -> Array:
    """Return whole wafers, one for each placement, as means of what they were drawn at."""
    cells = []
    for number, law in enumerate(LAWS[1:]):
        options = whole(law)
        image = options.plane(options.entry("train", number))[0]
        count = image.shape[0] // 23
        small = image[: 23 * count, : 23 * count].reshape(count, 23, count, 23).mean((1, 3))
        cells.append(named(small, law))
    return np.concatenate([np.concatenate(cells[:2], 1), np.concatenate(cells[2:], 1)])


def beside(folder: Path) -> Array:
    """Return rows of a real image and a made-up field of its size, grey."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise SystemExit(f"{folder}: no image with {', '.join(sorted(ENDINGS))}")
    rows = []
    for number, path in enumerate(files[:: max(len(files) // 4, 1)][:4]):
        real = np.asarray(open_image(path)[:]).mean(0)[:256, :256]
        scale = 255.0 / max(float(real.max()), 1.0)
        options = Wafers(height=256, width=256, good=0.0, contrast_to_noise=(3.0, 5.0))
        made = options.plane(options.entry("test", number))[0]
        room = np.zeros((256, 256))
        room[: real.shape[0], : real.shape[1]] = real * scale
        rows.append(np.concatenate([named(room, path.name), named(made, "made up")], 1))
    return np.concatenate(rows)


def named(image: Array, text: str) -> Array:
    """Return a picture with its name on a dark bar above it."""
    bar = Image.new("L", (image.shape[1], 14), 20)
    ImageDraw.Draw(bar).text((3, 1), text, fill=230)
    return np.concatenate([np.asarray(bar, float), image])


def save(path: Path, picture: Array) -> None:
    """Write a picture in 32 greys: noise hardly packs, and the eye needs no more."""
    greys = np.clip(picture, 0, 255).astype(np.uint8) & 0xF8
    Image.fromarray(greys).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def timings() -> None:
    """Print the processor time of fields and of a region of a whole wafer, one core."""
    options = Wafers(train=40)
    opened = options.open(Path())
    entries = [options.entry("train", number) for number in range(40)]
    opened.load(entries[0])
    start = time.process_time()
    for entry in entries:
        opened.load(entry)
    print(f"a field of 512 x 512 px: {(time.process_time() - start) / 40 * 1e3:.0f} ms")
    made = Wafers(view="wafer", spacing_um=5.0, scratch_um=(500.0, 150_000.0), good=0.0)
    plane = made.plane(made.entry("train", 0))
    start = time.process_time()
    defects = plane.defects
    drawn = time.process_time()
    plane.region(28_000, 28_000 + 4096, 20_000, 20_000 + 4096)
    side = plane.size[0]
    print(f"{len(defects)} defects of a wafer of {side} x {side} px: {drawn - start:.1f} s")
    print(f"a region of 4096 x 4096 px of it: {time.process_time() - drawn:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    if options.time:
        timings()
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if options.beside is not None:
        save(options.out / "real.png", beside(options.beside))
        return
    drawn = {"classes": classes, "levels": levels, "spacings": spacings, "placements": wafers}
    for name, draw in drawn.items():
        save(options.out / f"wafers-{name}.png", draw())


if __name__ == "__main__":
    main()
