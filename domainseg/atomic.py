"""Files that appear whole or not at all.

A reader never sees half a file, and a run that is killed leaves the file of the
run before it. The temporary file stands in the same folder, because a rename is
atomic only inside one file system.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from domainseg.errors import OutputError, sentence

_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_PLACE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


PARTIAL = ".partial-"
"""How the name of a file begins that is not whole yet."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path in the folder of ``path`` that takes its name once the block is through.

    The yielded path ends like ``path`` (``.ome.tif`` stays ``.ome.tif``), so that
    a writer which chooses the format by the name chooses the same. When the block
    raises, whatever was written is deleted and ``path`` is what it was before.

    Raises:
        OutputError: when the disk is full, the folder is missing, or writing there
            is not permitted.
    """
    ending = "".join(path.suffixes[-2:])
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}{ending}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if (refusal := _refusal(error, path, partial)) is None:
            raise
        raise refusal from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def atomic_text(path: Path, text: str) -> None:
    r"""Write ``text`` as UTF-8 with ``\n`` line ends, whole or not at all.

    Raises:
        OutputError: as `atomic_path`.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def sweep_partial(folder: Path) -> None:
    """Delete the files that a writer which was killed left half written in a folder."""
    for partial in folder.glob(f"{PARTIAL}*"):
        with suppress(OSError):
            partial.unlink()


@contextmanager
def writing_below(folder: Path) -> Iterator[None]:
    """Turn what the system says while a library writes below ``folder`` into our error.

    Raises:
        OutputError: when the disk is full, or writing there is not permitted.
    """
    try:
        yield
    except OSError as error:
        inner = Path(os.fspath(error.filename)) if error.filename else folder
        below = inner == folder or folder in inner.parents
        if not below or (refusal := _refusal(error, folder, inner)) is None:
            raise
        raise refusal from error


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, where they are missing.

    Raises:
        OutputError: when it cannot be created, or a file has its name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            sentence(
                path,
                found=error.strerror or "no folder",
                wanted="a folder to write into",
                fix="choose another output folder",
            )
        ) from error


def _refusal(error: OSError, path: Path, partial: Path) -> OutputError | None:
    """Return the sentence for an error of writing; None when it speaks of another file."""
    if isinstance(error, OutputError):
        return None
    if error.errno in _ROOM:
        return OutputError(
            sentence(
                path,
                found="no room left on the disk",
                wanted="room for the whole file",
                fix="free some space or choose another output folder",
            )
        )
    named = {None, str(path), str(partial)}
    if (error.filename and os.fspath(error.filename)) not in named:
        return None
    if error.errno in _PERMISSION:
        return OutputError(
            sentence(
                path,
                found="a folder that may not be written to",
                wanted="write permission",
                fix="change the permission or choose another output folder",
            )
        )
    if error.errno in _PLACE:
        found = "a folder of that name" if path.is_dir() else "no folder to write into"
        return OutputError(
            sentence(
                path,
                found=found,
                wanted="a file in an existing folder",
                fix="create the folder or choose another output path",
            )
        )
    return None
