"""What can be wrong in a COCO file, counted while the rest of it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from domainseg.errors import InputError, sentence

NAMED = 3
"""Examples that are named of each fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which something in a file cannot be used.

    Attributes:
        what: the thing, in the singular.
        found: what is wrong with several of them, after "annotations".
        wanted: what they should be like.
    """

    what: str
    found: str
    wanted: str


CATEGORY_FIELDS = Fault(
    "category", "without a whole number as id and a name", "an id and a name for each"
)
CATEGORY_TWICE = Fault("category", "with an id that stands before", "every id once")
NAME_TWICE = Fault("category", "with a name that stands before", "every name once")

IMAGE_FIELDS = Fault(
    "image",
    "without id, file_name, height and width",
    "whole numbers, at least 1 as height and width, and a name for each",
)
IMAGE_TWICE = Fault("image", "with an id that stands before", "every id once")
FILE_TWICE = Fault("image", "whose file or name is that of one before", "every file once")
FILE_MISSING = Fault("image", "whose file is missing", "the files in the folder of the images")
FILE_UNCLEAR = Fault(
    "image", "whose name several files have", "names that tell which file, folders included"
)
IMAGE_SIZE = Fault(
    "image", "of another size than the annotations say", "the images that were annotated"
)

FIELDS = Fault(
    "annotation",
    "without whole numbers as id, image_id and category_id",
    "the three for each",
)
PANOPTIC = Fault(
    "annotation",
    "with segments_info, as panoptic files have them",
    "annotations of instances, or panoptic: the folder of the PNGs",
)
ID_TWICE = Fault("annotation", "with an id that stands before", "every id once")
NO_IMAGE = Fault("annotation", "whose image_id no image has", "the id of one of the images")
NO_CATEGORY = Fault(
    "annotation", "whose category_id no category has", "the id of one of the categories"
)
BOX = Fault("annotation", "whose bbox has no area", "a width and a height above 0")
NO_OUTLINE = Fault("annotation", "without a segmentation", "polygons or run lengths")
SHORT = Fault(
    "annotation",
    "with a polygon of fewer than three points or of an odd number of coordinates",
    "x and y of three points or more",
)
NO_NUMBERS = Fault(
    "annotation", "with coordinates that are no finite numbers", "polygons as lists of numbers"
)
OUTSIDE = Fault("annotation", "wholly outside the image", "outlines inside their image")
FAR = Fault(
    "annotation",
    "reaching farther out of the image than its longer side",
    "outlines inside their image",
)
RUNS_SIZE = Fault(
    "annotation", "with run lengths of another size", "run lengths of the image's size"
)
RUNS = Fault(
    "annotation",
    "with run lengths that cannot be read",
    "counts that add up to the pixels of the image",
)
NO_PIXEL = Fault("annotation", "without a pixel", "regions of at least one pixel")

PANOPTIC_FIELDS = Fault(
    "annotation",
    "without image_id, file_name and segments_info",
    "a whole number, a name and a list for each",
)
PANOPTIC_TWICE = Fault("annotation", "of an image that stands before", "one for each image")
PNG_MISSING = Fault(
    "image", "whose PNG of segments is missing", "the files in the folder of panoptic"
)
PNG_UNREADABLE = Fault(
    "image",
    "whose PNG of segments is damaged or has not three channels of 8 bits",
    "ids as R + 256 G + 65536 B",
)
PNG_SIZE = Fault("image", "whose PNG of segments has another size", "the size of the image")
SEGMENT_FIELDS = Fault(
    "segment",
    "without whole numbers as id, above 0, and category_id",
    "the two for each",
)
SEGMENT_TWICE = Fault("segment", "with an id that stands before", "every id once in an image")
SEGMENT_CATEGORY = Fault(
    "segment", "whose category_id no category has", "the id of one of the categories"
)
SEGMENT_NO_PIXEL = Fault("segment", "without a pixel in the PNG", "segments that can be seen")
SEGMENT_UNLISTED = Fault(
    "segment", "in the PNG and not in segments_info", "every segment in the list"
)


@dataclass(slots=True)
class Tally:
    """How often each fault was met in a file, and where first.

    Attributes:
        path: of the file.
        counts: of each fault.
        first: names of the first few, of each fault.
    """

    path: Path
    counts: dict[Fault, int] = field(default_factory=dict)
    first: dict[Fault, list[str]] = field(default_factory=dict)
    _seen: set[tuple[Fault, str]] = field(default_factory=set)

    def add(self, fault: Fault, name: object) -> None:
        """Count one more."""
        self.add_all(fault, (name,), 1)

    def add_all(self, fault: Fault, names: Iterable[object], count: int) -> None:
        """Count ``count`` more, called by these names; no more than a few of them are kept."""
        self.counts[fault] = self.counts.get(fault, 0) + count
        kept = self.first.setdefault(fault, [])
        kept += [str(name) for name in islice(names, NAMED - len(kept))]

    def add_once(self, fault: Fault, name: object) -> None:
        """Count one more, unless it was counted by this name before: images are read again."""
        if (fault, str(name)) not in self._seen:
            self._seen.add((fault, str(name)))
            self.add(fault, name)

    def sentences(self) -> tuple[str, ...]:
        """Return a sentence for each fault: how many were skipped, why, and the first."""
        return tuple(
            f"{self.path}: skipped {self._described(fault)}; wanted {fault.wanted}."
            for fault in self.counts
        )

    def refuse(self) -> None:
        """Raise InputError when anything was counted, for the fault that was met first."""
        for fault in self.counts:
            raise self.refusal(fault)

    def refusal(
        self, fault: Fault, *, fix: str = "correct them, or set on_error: skip"
    ) -> InputError:
        """Return the error that stands for a fault that was counted."""
        found = self._described(fault)
        return InputError(sentence(self.path, found=found, wanted=fault.wanted, fix=fix))

    def _described(self, fault: Fault) -> str:
        count, named = self.counts[fault], self.first[fault]
        what = fault.what if count == 1 else _plural(fault.what)
        more = f" and {count - len(named)} more" if count > len(named) else ""
        return f"{count} {what} {fault.found} ({', '.join(named)}{more})"


def _plural(what: str) -> str:
    return what[:-1] + "ies" if what.endswith("y") else what + "s"
