"""Other tools on the same images, the same machine and the same budget, in a few tables.

    python benchmarks/peers.py DATA OUT [--minutes 30] [--only stardist cellpose ...]
        [--ours NAME=MODEL ...] [--keep docs/peers]

DATA is laid out as recipes/nuclei-unet.yaml wants it. Each peer is trained from scratch on the part
``train``, for as many minutes, and judged on ``test``; StarDist and Cellpose in environments of
their own below OUT, which are made where they are not there (StarDist 0.9.2 with tensorflow-cpu
2.21, Cellpose 3.1.1). ``nuclei-unet 30 min`` is that recipe in as many minutes, and beside it stand
whatever models are named, by default the one that ships. What is done is kept in OUT, and done
again where minutes, images, script or model are others. All methods take hours: with ``--keep``
the scores of each are kept by image in a folder, and those that are there of methods that were not
asked for, measured on another day on such a machine, stand in the tables too.

AP is TP / (TP + FP + FN), the mean over images, as are PQ and AJI here; after it comes each of ours
less each other method, with the paired bootstrap 95 % interval over images: those of as many
minutes are the fair ones. The last table says what each began from and was given. Seconds
a Mpx are those of the test images, one by one, from pixels to labels, after one to warm up; memory
is the peak of the process at that. The size of an installation is that of the packages that the
tool asks for, and those that these ask for, on disk.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image as PillowImage

import domainseg
from domainseg.about import FEWEST
from domainseg.instances.evaluation import Evaluation, LabelPair, evaluate_pairs
from domainseg.instances.matching import THRESHOLDS, Metrics
from domainseg.models.model_file import find_model, model_sha256, read_card
from domainseg.quality.bootstrap import mean_interval
from domainseg.train import train

TOOLS = Path(__file__).resolve().parent / "peer_tools"
CODE = Path(domainseg.__file__).parent
MB = 1e6
OURS = "domainseg, "
"""Before the names of models of ours."""


@dataclass(frozen=True)
class Given:
    """What a method begins from and is given.

    Attributes:
        weights: before its training.
        data: that it is trained on.
        rules: of what makes objects of its output: which, and on what they are chosen.
    """

    weights: str
    data: str
    rules: str


@dataclass(frozen=True)
class Peer:
    """A tool, and how it is run.

    Attributes:
        name: in the table.
        script: in ``peer_tools/``, with its leading arguments.
        given: what it was given.
        tools: packages that a user of it installs.
        packages: of an environment of its own, with their versions; none runs in this one.
    """

    name: str
    script: tuple[str, ...]
    given: Given
    tools: tuple[str, ...]
    packages: tuple[str, ...] = ()


IMAGENET = "an encoder's ImageNet weights"
SCRATCH = "random weights"

PEERS = {
    "otsu": Peer(
        "Otsu + watershed",
        ("otsu_peer.py",),
        Given("nothing", "nothing", "constants, on validation images"),
        ("scikit-image",),
    ),
    "smp": Peer(
        "smp U-Net, thresholded",
        ("torch_peer.py", "smp"),
        Given(IMAGENET, "train", "threshold and size, on validation images"),
        ("segmentation-models-pytorch", "albumentations", "scikit-image"),
    ),
    "monai": Peer(
        "MONAI U-Net, thresholded",
        ("torch_peer.py", "monai"),
        Given(SCRATCH, "train", "threshold and size, on validation images"),
        ("monai", "albumentations", "scikit-image"),
    ),
    "stardist": Peer(
        "StarDist 0.9.2",
        ("stardist_peer.py",),
        Given(SCRATCH, "train", "its two thresholds, on validation images"),
        ("stardist", "tensorflow-cpu"),
        ("stardist==0.9.2", "tensorflow-cpu==2.21", "pillow"),
    ),
    "cellpose": Peer(
        "Cellpose 3.1.1",
        ("cellpose_peer.py",),
        Given(SCRATCH, "train", "its defaults"),
        ("cellpose",),
        ("cellpose==3.1.1", "pillow"),
    ),
}
METHODS = ["quick", *PEERS]
"""Those that may be asked for: ours in the minutes of a peer, and the peers."""


@dataclass(frozen=True)
class Result:
    """What one method reached and cost.

    Attributes:
        name: in the table.
        given: what it was given.
        images: name, kind and READINGS of each image.
        told: what it cost, by name.
    """

    name: str
    given: Given
    images: tuple[dict[str, Any], ...]
    told: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, given: Given, found: Evaluation, told: Mapping[str, Any]) -> Result:
        """Return what an evaluation says."""
        rows = (
            {"image": row.id, "kind": row.kind}
            | {reading: round(of(row.metrics), 6) for reading, of in READINGS.items()}
            for row in found.images
        )
        return cls(name, given, tuple(rows), told)

    def of_kind(self, kind: str | None) -> dict[str, dict[str, Any]]:
        """Return the rows of images of a kind, by name; of all for None."""
        return {one["image"]: one for one in self.images if kind in (None, one["kind"])}


def kept(folder: Path | None, made: Mapping[str, Result], of: Mapping[str, Any]) -> list[Result]:
    """Keep results in a folder by their key; return them and what was kept there before.

    ``of`` is what they were measured of; those of something else are named and left out.
    """
    if folder is None:
        return list(made.values())
    folder.mkdir(parents=True, exist_ok=True)
    for key, one in made.items():
        content = {
            "name": one.name,
            "given": asdict(one.given),
            "of": dict(of),
            "made": {"day": time.strftime("%Y-%m-%d"), "machine": machine()},
            "told": dict(one.told),
            "images": list(one.images),
        }
        (folder / f"{key}.json").write_text(json.dumps(content, indent=1) + "\n")
    others = []
    for path in sorted(folder.glob("*.json")):
        one = json.loads(path.read_text())
        if path.stem in made:
            continue
        if one["of"] == dict(of):
            given = Given(**one["given"])
            others.append(Result(one["name"], given, tuple(one["images"]), one["told"]))
        else:
            print(f"{path}: measured of other images or in other minutes, left out")
    return [*made.values(), *others]


def machine() -> str:
    """Return the processor and how many threads torch takes."""
    with Path("/proc/cpuinfo").open() as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores"


def python_of(peer: Peer, key: str, out: Path) -> Path:
    """Return the interpreter of a peer; its environment is made where it is not there."""
    if not peer.packages:
        return Path(sys.executable)
    folder = out / "envs" / key
    python = folder / "bin" / "python"
    # What reads the sizes of packages needs packaging.
    wanted = (*peer.packages, "packaging")
    done = folder / "packages.txt"
    if not done.exists() or done.read_text().split() != list(wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        done.write_text("\n".join(wanted))
    return python


INSTALLED = """
import json, pathlib, re, sys
from importlib.metadata import PackageNotFoundError, distribution
from packaging.requirements import Requirement
waiting, seen, size = list(sys.argv[1:]), set(), 0
while waiting:
    name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
    if name in seen:
        continue
    seen.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        continue
    files = [file.locate() for file in found.files or ()]
    editable = json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {})
    if editable.get("editable"):
        # Of a checkout, what an installation would copy: the package of that name.
        package = __import__(name.replace("-", "_")).__file__
        files += pathlib.Path(package).parent.rglob("*")
    size += sum(at.lstat().st_size for at in files if at.is_file() and at.suffix != ".pyc")
    for text in found.requires or ():
        asked = Requirement(text)
        if asked.marker is None or asked.marker.evaluate({"extra": ""}):
            waiting.append(asked.name)
print(size / 1e6)
"""
"""A program that adds up the files of packages and of all that they ask for."""


def installed_mb(python: Path, names: Sequence[str]) -> float:
    """Return the size of packages, and of those that they ask for, on disk, MB."""
    told = subprocess.run(
        [str(python), "-c", INSTALLED, *names], check=True, capture_output=True, text=True
    )
    return float(told.stdout)


def key_of(folder: Path, *parts: object) -> bool:
    """Return whether a folder was filled with the same parts; note them where not."""
    digest = hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()
    path = folder / "key.txt"
    if path.exists() and path.read_text() == digest:
        return True
    for old in ("train.json", "told.json"):
        (folder / old).unlink(missing_ok=True)
    path.write_text(digest)
    return False


def peak_of(command: Sequence[str], log: Path) -> float:
    """Run a command, its output into a file; return the peak memory of its processes, MB."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=TOOLS)
        peak = 0
        while process.poll() is None:
            try:
                main = psutil.Process(process.pid)
                every = [main, *main.children(recursive=True)]
                peak = max(peak, sum(one.memory_info().rss for one in every))
            except psutil.Error:
                pass
            time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed; see {log}")
    return peak / MB


def test_images(data: Path) -> Iterator[tuple[str, str]]:
    """Yield name and kind of the test images."""
    with (data / "index.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if line["split"] == "test":
                yield line["image"], line["kind"]


def scored(data: Path, labels: Path) -> Evaluation:
    """Return the scores of ``labels/NAME.npy``."""

    def pairs() -> Iterator[LabelPair]:
        for name, kind in test_images(data):
            truth: NDArray[np.int32] = np.asarray(
                PillowImage.open(data / "labels" / f"{name}.png")
            ).astype(np.int32)
            yield LabelPair(name, truth, np.load(labels / f"{name}.npy"), kind=kind)

    return evaluate_pairs(pairs(), rng=np.random.default_rng(0))


def run(key: str, peer: Peer, data: Path, out: Path, minutes: float) -> Result:
    """Train a peer and let it label the test images, as far as that is not done."""
    folder = out / key
    folder.mkdir(parents=True, exist_ok=True)
    script = (TOOLS / peer.script[0]).read_text() + (TOOLS / "shared.py").read_text()
    key_of(folder, minutes, (data / "index.csv").read_text(), script, peer.packages)
    python = python_of(peer, key, out)
    command = [str(python), *peer.script]
    if not (folder / "train.json").exists():
        peak_of([*command, "train", str(data), str(folder), str(minutes)], folder / "train.log")
    told = json.loads((folder / "train.json").read_text())
    return labelled(peer.name, peer.given, command, peer.tools, data, folder, told)


def ours(name: str, model: Path, data: Path, out: Path) -> Result:
    """Return what a model of ours reaches, through the same steps as a peer."""
    folder = out / f"ours-{name.replace(' ', '-')}"
    folder.mkdir(parents=True, exist_ok=True)
    code = (path.read_text() for path in sorted(CODE.rglob("*.py")))
    key_of(folder, (data / "index.csv").read_text(), model_sha256(model), *code)
    (folder / "model.txt").write_text(str(model))
    card = read_card(model)
    told = {"minutes": card.training["minutes"], "steps": card.training["steps"]}
    also = len(card.recipe["data"].get("also") or ())
    given = Given(
        IMAGENET,
        "train and made-up scenes" if also else "train",
        "of its card, on validation images",
    )
    command = [sys.executable, "ours_peer.py"]
    return labelled(f"{OURS}{name}", given, command, ("domainseg",), data, folder, told)


def ours_in(minutes: float, data: Path, out: Path) -> Path:
    """Train the recipe `nuclei-unet` for a tenth less than a peer, as far as that is not done."""
    folder = out / f"nuclei-{minutes:g}"
    if not (folder / "model.safetensors").exists():
        # Minutes become steps beforehand, and the machine may be slower by then.
        planned = (
            f"data.root={data}",
            "train.max_steps=null",
            f"train.max_minutes={0.9 * minutes:g}",
        )
        train("nuclei-unet", folder, overrides=planned, resume=folder.exists())
    return folder / "model.safetensors"


def labelled(
    name: str,
    given: Given,
    command: Sequence[str],
    tools: Sequence[str],
    data: Path,
    folder: Path,
    told: Mapping[str, Any],
) -> Result:
    """Let a method label the test images, as far as that is not done, and score it."""
    if not (folder / "told.json").exists():
        peak = peak_of([*command, "predict", str(data), str(folder)], folder / "predict.log")
        made = {
            **told,
            **json.loads((folder / "predict.json").read_text()),
            "peak_mb": peak,
            "installed_mb": installed_mb(Path(command[0]), tools),
        }
        (folder / "told.json").write_text(json.dumps(made))
    told = json.loads((folder / "told.json").read_text())
    return Result.of(name, given, scored(data, folder / "labels"), told)


def gain(one: Result, other: Result, kind: str | None, reading: str) -> str:
    """Return by how much one is better than another in the mean over images, and the interval."""
    ours, theirs = one.of_kind(kind), other.of_kind(kind)
    differences = np.array([ours[name][reading] - theirs[name][reading] for name in sorted(ours)])
    low, high = mean_interval(differences, np.random.default_rng(0))
    return f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f})"


COSTS = ("s/Mpx", "peak MB", "training, min", "steps", "installed, MB")


def _ap_at(at: int) -> Callable[[Metrics], float]:
    return lambda one: float(one.ap[at])


READINGS: dict[str, Callable[[Metrics], float]] = {
    **{f"AP {iou:g}": _ap_at(at) for at, iou in enumerate(THRESHOLDS)},
    "AP .5-.9": lambda one: one.mean_ap,
    "PQ": lambda one: one.pq,
    "AJI": lambda one: one.aji,
}
"""What is read of an image's scores."""


def scores_of(result: Result, kind: str | None) -> tuple[str, ...]:
    """Return a row of the first table: means over the images of a kind, and the costs."""
    rows = result.of_kind(kind).values()
    told = result.told
    return (
        result.name,
        *(f"{np.mean([one[reading] for one in rows]):.3f}" for reading in READINGS),
        f"{told['seconds_per_mpx']:.2f}",
        f"{told['peak_mb']:.0f}",
        f"{told['minutes']:.1f}",
        f"{told['steps']}",
        f"{told['installed_mb']:.0f}",
    )


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for one in rows:
        print("| " + " | ".join(one) + " |", flush=True)
    print()


def main() -> None:
    """Run what is asked for and print one table for all images and one for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--ours", nargs="+", default=["nuclei=nuclei"], metavar="NAME=MODEL")
    parser.add_argument("--keep", type=Path, help="folder of the scores of each method")
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    made: dict[str, Result] = {}
    for one in options.ours:
        name, _, model = one.partition("=")
        made[f"ours-{name}"] = ours(name, find_model(Path(model)).resolve(), data, out)
    if "quick" in options.only:
        quick = ours_in(options.minutes, data, out)
        made["ours-quick"] = ours(f"nuclei-unet {options.minutes:g} min", quick, data, out)
    for key in options.only:
        if key in PEERS:
            made[key] = run(key, PEERS[key], data, out, options.minutes)
    digest = hashlib.sha256((data / "index.csv").read_bytes()).hexdigest()
    results = kept(options.keep, made, {"index_sha256": digest, "minutes": options.minutes})
    mine = [one for one in results if one.name.startswith(OURS)]
    counts = Counter(str(one["kind"]) for one in results[0].images)
    kinds = sorted(kind for kind, count in counts.items() if count >= FEWEST)
    for kind in (None, *kinds):
        print(f"\n{kind or 'all'}\n")
        show(("method", *READINGS, *COSTS), [scores_of(one, kind) for one in results])
        for first in mine:
            others = [one for one in results if one is not first]
            rows = [
                (one.name, *(gain(first, one, kind, each) for each in READINGS)) for one in others
            ]
            show((f"{first.name} less", *READINGS), rows)
    given = [(one.name, *asdict(one.given).values()) for one in results]
    show(("method", "begins from", "trained on", "rules"), given)


if __name__ == "__main__":
    main()
