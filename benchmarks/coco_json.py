"""How long a COCO file of the size of train2017 takes to open, and the memory it takes.

    python benchmarks/coco_json.py FOLDER [--images 118287] [--annotations 860001]

FOLDER gets, unless it is there, a made-up annotation file of some 450 MB and as many empty
files as images. Prints the seconds of opening it with the loader, after the imports, and the
peak memory of the process; the same of pycocotools; and the ratios. Each runs in a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

KINDS = 80
OUTLINES = 4096
"""Outlines that are drawn; annotations repeat them, so that making the file takes a minute."""
CROWDS = 10_000 / 860_001
"""Share of crowd regions in train2017."""
PROBE = """
import resource, sys, time
from pathlib import Path
root = Path(sys.argv[1])
{setup}
begun = time.perf_counter()
{work}
seconds = time.perf_counter() - begun
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, count)
"""
OURS = PROBE.format(
    setup="from domainseg.loaders.coco import Coco",
    work="data = Coco().open(root)\ncount = sum(len(part.marks.ids) for part in data.parts)",
)
PLAIN = PROBE.format(
    setup="from pycocotools.coco import COCO; out, sys.stdout = sys.stdout, sys.stderr",
    work="data = COCO(root / 'annotations.json')\ncount = len(data.anns); sys.stdout = out",
)


def main() -> None:
    """Print one row per reader, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--annotations", type=int, default=860_001)
    given = parser.parse_args()
    path = given.folder / "annotations.json"
    if not path.is_file():
        make(given.folder, given.images, given.annotations)
    print(f"{path}  {path.stat().st_size / 1e6:.0f} MB")
    print("reader        seconds  peak GB  annotations")
    figures = {}
    for name, code in (("domainseg", OURS), ("pycocotools", PLAIN)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(given.folder)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds, peak, count = done.stdout.split()
        figures[name] = float(seconds), float(peak)
        print(f"{name:12s} {float(seconds):8.1f} {float(peak):8.2f} {int(count):12d}")
    (ours, our_peak), (plain, plain_peak) = figures["domainseg"], figures["pycocotools"]
    print(
        f"pycocotools takes {plain / ours:.2f} x the time, {plain_peak / our_peak:.1f} x the memory"
    )


def make(folder: Path, images: int, annotations: int) -> None:
    """Write the annotation file, the list of images first as in train2017, and empty images."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for number in range(images):
        (folder / "images" / f"{number:012d}.jpg").touch()
    outlines = [outline(rng) for _ in range(OUTLINES)]
    choice = rng.integers(0, OUTLINES, annotations)
    owners = rng.integers(0, images, annotations)
    crowds = rng.random(annotations) < CROWDS
    partial = folder / "annotations.partial"
    with partial.open("w") as file:
        file.write('{"info": {"description": "made up"}, "licenses": [], "images": [')
        for number in range(images):
            file.write(", " if number else "")
            file.write(json.dumps(image(number)))
        file.write('], "annotations": [')
        for number in range(annotations):
            file.write(", " if number else "")
            text = CROWD if crowds[number] else outlines[choice[number]]
            file.write(
                f'{{"segmentation": {text}, "area": 1234.56, "iscrowd": {int(crowds[number])}, '
                f'"image_id": {owners[number]}, "bbox": [12.34, 56.78, 90.12, 34.56], '
                f'"category_id": {1 + choice[number] % KINDS}, "id": {number + 1}}}'
            )
        kinds = [{"supercategory": "a", "id": k + 1, "name": f"kind {k}"} for k in range(KINDS)]
        file.write(f'], "categories": {json.dumps(kinds)}}}')
    partial.rename(folder / "annotations.json")


def image(number: int) -> dict[str, object]:
    """Return an image with the members that those of train2017 have."""
    name = f"{number:012d}.jpg"
    return {
        "license": 4,
        "file_name": name,
        "coco_url": f"http://images.example.org/train2017/{name}",
        "height": 480,
        "width": 640,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm7.staticflickr.example.org/6116/{number}_z.jpg",
        "id": number,
    }


def outline(rng: np.random.Generator) -> str:
    """Return polygons of some 44 coordinates, two digits behind the point."""
    points = max(3, int(rng.lognormal(2.86, 0.7)))
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    radius = rng.uniform(10, 200) * rng.uniform(0.7, 1.3, points)
    x = np.clip(320 + radius * np.cos(angles), 0, 639)
    y = np.clip(240 + radius * np.sin(angles), 0, 479)
    return json.dumps([[round(float(v), 2) for v in np.stack([x, y], 1).ravel()]])


CROWD = json.dumps(
    {"counts": [1000, *[40, 440] * 120, 640 * 480 - 1000 - 480 * 120], "size": [480, 640]}
)


if __name__ == "__main__":
    main()
