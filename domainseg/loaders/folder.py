"""Files of a folder by the id they share with their partners."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.images import FORMATS
from domainseg.records import Array, Spacing

ENDINGS = (".ome.tif", ".ome.tiff", *FORMATS)
"""Of image and mask files; the longer ones first."""


def bare(name: str, endings: Collection[str] = ENDINGS) -> str:
    """Return a file name or path without its ending, unchanged if it has none of ``endings``."""
    ending = next((e for e in endings if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


def some(names: Collection[str]) -> str:
    """Return the first three names in order, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + more


def existing_folder(folder: Path, what: str) -> Path:
    """Return ``folder`` if it is one.

    Raises:
        MissingInputError: when it is not there, or is a file.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise MissingInputError(
            sentence(folder, found=found, wanted=f"the folder of the {what}", fix="check the path")
        )
    return folder


def files_by_id(
    folder: Path,
    suffix: str,
    *,
    endings: Collection[str] = ENDINGS,
    renames: Mapping[str, str] | None = None,
    skip_folders: Iterable[Path] = (),
    skip_suffixes: Iterable[str] = (),
) -> dict[str, Path]:
    """Return the files below ``folder`` whose bare name ends with ``suffix``, by id.

    The id is the path below the folder, with forward slashes, without ending and suffix, in
    which the keys of ``renames`` are replaced by their values. Files with none of the
    ``endings``, in any case, hidden files and folders are passed over, as are
    ``skip_folders`` and names that end with one of ``skip_suffixes``.

    Raises:
        InputError: when two files have one id.
    """
    found: dict[str, Path] = {}
    others = tuple(other for other in skip_folders if folder in other.parents)
    skipped = tuple(skip_suffixes)
    for path in sorted(folder.rglob("*")):
        name = bare(path.name, endings)
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if hidden or name == path.name or not path.is_file():
            continue
        if len(name) <= len(suffix) or not name.endswith(suffix) or name.endswith(skipped):
            continue
        if any(other in path.parents for other in others):
            continue
        key = place.with_name(name[: len(name) - len(suffix)]).as_posix()
        for old, new in (renames or {}).items():
            key = key.replace(old, new)
        if (other := found.setdefault(key, path)) != path:
            raise InputError(
                sentence(
                    path,
                    found=f"the same name as {other.name}",
                    wanted="one file per name",
                    fix="rename or remove one",
                )
            )
    return found


def same_size(path: Path, mask: Array, size: tuple[int, int]) -> None:
    """Raise InputError unless the mask read from ``path`` is of its image's size ``(H, W)``."""
    if mask.shape != size:
        raise InputError(
            sentence(
                path,
                found=f"{mask.shape[0]} x {mask.shape[1]} px",
                wanted=f"{size[0]} x {size[1]} px, the size of its image",
                fix="export the two at one size",
            )
        )


def spacing_of(
    option: float | tuple[float, float] | None, stored: Spacing | None
) -> Spacing | None:
    """Return the pixel size ``(y, x)``: the option where there is one, else the file's."""
    if option is None:
        return stored
    return option if isinstance(option, tuple) else (option, option)
