"""Which entries train, validate and test: by column, by file lists, or by hash of the group."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from domainseg.errors import InputError, MissingInputError, RecipeError, sentence
from domainseg.loaders.folder import bare, some
from domainseg.records import Entry

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How a data set is split.

    Whatever the rule, no group (plate, lot, patient; the image itself unless the
    loader was told otherwise) may stand in two parts.

    Attributes:
        by: ``hash`` draws each group by a hash of its name, the same on every
            machine and for every order of the images, and leaves no part with a
            share empty; ``column`` reads a column of the index; ``files`` reads
            lists of ids.
        seed: of the hash.
        val: share of the groups that validate, with ``hash``.
        test: share of the groups that test, with ``hash``.
        column: name of the column.
        values: what the column says for train, val and test; each word for itself
            when empty.
        leave_out: values of the column whose images are used for nothing.
        files: path of the list of train, val and test, relative to the data's root:
            text with one id a line (``#`` starts a comment; a file's ending is
            dropped), or CSV with the column ``key``. Images in no list are left out.
        key: column of a CSV list that holds the id.
        val_from_train: share of the training groups that validate instead, drawn by their
            hash, where a column or lists name none to validate.
    """

    by: Literal["hash", "column", "files"] = "hash"
    seed: int = 0
    val: float = 0.15
    test: float = 0.15
    column: str = "split"
    values: dict[Part, str] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    files: dict[Part, str] = field(default_factory=dict)
    key: str = "image"
    val_from_train: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.val_from_train < 1 or (self.val_from_train and self.by == "hash"):
            given = f"{self.val_from_train:g}"
            raise RecipeError(
                sentence(
                    "split.val_from_train",
                    found=f"{given} by hash" if self.by == "hash" else given,
                    wanted="0 by hash, whose share is val, else from 0 to below 1",
                    fix="change it",
                )
            )
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise RecipeError(
                sentence(
                    "split",
                    found=f"val {self.val:g} and test {self.test:g}",
                    wanted="shares of at least 0 that leave something to train",
                    fix="make them smaller",
                )
            )
        if self.by == "files" and "train" not in self.files:
            raise RecipeError(
                sentence(
                    "split.files",
                    found=f"lists of {', '.join(self.files) or 'nothing'}",
                    wanted="at least the list of train",
                    fix="name it, or split by column or hash",
                )
            )


@dataclass(frozen=True, slots=True)
class Splits:
    """The entries of each part, each sorted by id."""

    train: tuple[Entry, ...]
    val: tuple[Entry, ...]
    test: tuple[Entry, ...]


def split(entries: Sequence[Entry], options: Split, *, root: Path = Path()) -> Splits:
    """Return the parts of a data set; ``root`` is where file lists are looked for.

    Raises:
        InputError: when an entry is listed twice or a listed one does not exist, when
            a column or one of its values cannot be used, when a group straddles two
            parts, when there are fewer groups than parts to hash them into, when
            validation is to be drawn from training and is there already, or when nothing
            is left to train on.
    """
    if twice := [name for name, count in Counter(e.id for e in entries).items() if count > 1]:
        raise InputError(
            sentence(
                "data set",
                found=f"{some(twice)} twice",
                wanted="every id once",
                fix="rename or remove one",
            )
        )
    if options.by == "hash":
        parts = _by_hash(entries, options)
    elif options.by == "column":
        parts = _by_column(entries, options)
    else:
        parts = _by_files(entries, options, root)
    _refuse_straddling(entries, parts)
    if options.val_from_train:
        parts = _with_val_from_train(entries, parts, options)
    chosen = {
        part: tuple(
            sorted((e for e in entries if parts.get(e.id) == part), key=lambda entry: entry.id)
        )
        for part in PARTS
    }
    if not chosen["train"]:
        raise InputError(
            sentence(
                "split",
                found=f"no image to train on among {len(entries)}",
                wanted="at least one",
                fix=f"change the rule (by {options.by}) or add images",
            )
        )
    return Splits(**chosen)


def part_of(group: str, options: Split) -> Part:
    """Return the part a group falls in: the first 64 bits of sha256 of ``seed:group`` as a share.

    Test comes first, then validation: a larger validation share takes from training only.
    In a data set so small that a part would stay empty, `split` moves some groups.
    """
    share = _share(group, options.seed)
    if share < options.test:
        return "test"
    return "val" if share < options.test + options.val else "train"


def _share(group: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _by_hash(entries: Sequence[Entry], options: Split) -> dict[str, Part]:
    """Return the part of each entry by its group's hash, no part with a share left empty.

    Into a part that no hash fell into goes the group whose hash lies nearest to it, of
    those that are not alone in their part. So a large set is split by its hashes alone,
    and ten images have a validation and a test image too.

    Raises:
        InputError: when there are fewer groups than parts.
    """
    if not entries:
        return {}
    share_of = {entry.group: _share(entry.group, options.seed) for entry in entries}
    spans: dict[Part, tuple[float, float]] = {
        "train": (options.test + options.val, 1.0),
        "val": (options.test, options.test + options.val),
        "test": (0.0, options.test),
    }
    wanted = [part for part in PARTS if spans[part][1] > spans[part][0]]
    if len(share_of) < len(wanted):
        raise _too_few(len(entries), len(share_of), wanted)
    parts = {group: part_of(group, options) for group in sorted(share_of)}
    for empty in wanted:
        held = Counter(parts.values())
        if not held[empty]:
            low, high = spans[empty]
            free = [group for group, part in parts.items() if held[part] > 1]
            parts[min(free, key=lambda g: max(low - share_of[g], share_of[g] - high))] = empty
    return {entry.id: parts[entry.group] for entry in entries}


def _with_val_from_train(
    entries: Sequence[Entry], parts: Mapping[str, Part], options: Split
) -> dict[str, Part]:
    """Return the parts with some training groups moved to validation, at least one.

    The group of the lowest hash moves where none falls below the share.

    Raises:
        InputError: when there is something to validate on already, or only one training group.
    """
    if given := [name for name, part in parts.items() if part == "val"]:
        raise InputError(
            sentence(
                "split.val_from_train",
                found=f"{options.val_from_train:g}, yet {options.by} names {some(given)} for val",
                wanted="one of the two",
                fix="set it to 0",
            )
        )
    groups = {entry.group for entry in entries if parts.get(entry.id) == "train"}
    shares = {group: _share(group, options.seed) for group in groups}
    if len(groups) == 1:
        raise InputError(
            sentence(
                "split.val_from_train",
                found="1 group to train on",
                wanted="a group for each of train, val",
                fix="add images or set it to 0",
            )
        )
    lowest = sorted(groups, key=lambda group: (shares[group], group))
    moved = {group for group in groups if shares[group] < options.val_from_train}
    # As many as the hash says, yet one on either side.
    moved = (moved or set(lowest[:1])) - set(lowest[-1:])
    return {
        entry.id: "val" if parts[entry.id] == "train" and entry.group in moved else parts[entry.id]
        for entry in entries
        if entry.id in parts
    }


def _too_few(images: int, groups: int, wanted: Sequence[Part]) -> InputError:
    found, each = f"{images} image{'s' * (images > 1)}", "an image"
    if groups < images:
        found, each = f"{found} of {groups} group{'s' * (groups > 1)}", "a group"
    return InputError(
        sentence(
            "split",
            found=found,
            wanted=f"{each} for each of {', '.join(wanted)}",
            fix="add images, or set data.split.val or data.split.test to 0",
        )
    )


def _by_column(entries: Sequence[Entry], options: Split) -> dict[str, Part]:
    """Return the part of each entry by its column, those left out absent."""
    meaning = {options.values.get(part, part): part for part in PARTS}
    parts: dict[str, Part] = {}
    for entry in entries:
        value = entry.columns.get(options.column)
        if value is None:
            raise InputError(
                sentence(
                    entry.id,
                    found=f"columns {', '.join(sorted(entry.columns)) or 'none'}",
                    wanted=f"a column {options.column!r} to split by",
                    fix="name an index with that column or split by hash",
                )
            )
        if value in options.leave_out:
            continue
        if value not in meaning:
            raise InputError(
                sentence(
                    entry.id,
                    found=f"{value!r} in column {options.column!r}",
                    wanted=f"one of {', '.join(map(repr, meaning))}",
                    fix="correct it, map it in split.values, or add it to split.leave_out",
                )
            )
        parts[entry.id] = meaning[value]
    return parts


def _by_files(entries: Sequence[Entry], options: Split, root: Path) -> dict[str, Part]:
    """Return the part of each entry that a list names."""
    known = {entry.id for entry in entries}
    parts: dict[str, Part] = {}
    for part in PARTS:
        if part not in options.files:
            continue
        path = root / options.files[part]
        for line, name in _listed(path, options.key):
            found = name if name in known else bare(name)
            if found not in known:
                raise InputError(
                    sentence(
                        f"{path}:{line}",
                        found=f"{name!r}, which is no image of the data set",
                        wanted=f"one of its {len(known)} ids",
                        fix="correct or remove the line",
                    )
                )
            if found in parts:
                raise InputError(
                    sentence(
                        f"{path}:{line}",
                        found=f"{name!r}, already listed for {parts[found]}",
                        wanted="every image once",
                        fix="remove one of the lines",
                    )
                )
            parts[found] = part
    return parts


def _listed(path: Path, key: str) -> Iterator[tuple[int, str]]:
    """Yield line number and id of each line of a text or CSV list."""
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="a list of ids", fix="correct split.files")
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() != ".csv":
            for number, text in enumerate(file, 1):
                if name := text.split("#", 1)[0].strip():
                    yield number, name
            return
        table = csv.DictReader(file)
        if key not in (table.fieldnames or ()):
            raise InputError(
                sentence(
                    path,
                    found=f"columns {', '.join(table.fieldnames or ()) or 'none'}",
                    wanted=f"a column {key!r} with the ids",
                    fix="rename the column or set split.key",
                )
            )
        for row in table:
            yield table.line_num, (row[key] or "").strip()


def _refuse_straddling(entries: Sequence[Entry], parts: Mapping[str, Part]) -> None:
    """Raise when entries of one group stand in two parts."""
    seen: dict[str, Part] = {}
    for entry in entries:
        part = parts.get(entry.id)
        if part is None:
            continue
        if seen.setdefault(entry.group, part) != part:
            raise InputError(
                sentence(
                    f"group {entry.group}",
                    found=f"images in {seen[entry.group]} and in {part}",
                    wanted="a whole group in one part",
                    fix="change the split or the column that groups",
                )
            )
