"""The files of an image's roles: the image, its label, its ignore mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from domainseg.errors import MissingInputError, sentence
from domainseg.loaders.folder import existing_folder, files_by_id, some


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """How the files of one role are told from the others'.

    Attributes:
        name: for errors.
        folder: relative to the data's root.
        suffix: what every name ends with, before its ending.
        endings: of the files, lower case.
        renames: parts of an id and what stands there in the image's.
    """

    name: str
    folder: str
    suffix: str
    endings: tuple[str, ...]
    renames: Mapping[str, str] = field(default_factory=dict)

    def apart_from(self, other: Role) -> bool:
        """Tell whether no file can have both roles for want of another name."""
        return (
            self.suffix != other.suffix
            or Path(self.folder) != Path(other.folder)
            or not set(self.endings) & set(other.endings)
        )


def files_of(root: Path, role: Role, others: Collection[Role]) -> dict[str, Path]:
    """Return the files of a role by id, without those of the other roles.

    Raises:
        MissingInputError: when the folder is not there.
        InputError: when two files have one id.
    """
    folder = existing_folder(root / role.folder, role.name)
    elsewhere = [root / other.folder for other in others]
    return files_by_id(
        folder,
        role.suffix,
        endings=role.endings,
        renames=role.renames,
        skip_folders=[other for other in elsewhere if other != folder],
        # In a shared folder the longest suffix decides: a_mask is not an image named a_mask.
        skip_suffixes=[
            other.suffix
            for other in others
            if root / other.folder == folder
            and len(other.suffix) > len(role.suffix)
            and set(other.endings) & set(role.endings)
        ],
    )


def refuse_lonely(
    images: Collection[str], found: Mapping[str, Path], what: str, *, beside: Collection[str] = ()
) -> None:
    """Raise MissingInputError when a file has no image; ids ``beside`` need none."""
    if lonely := found.keys() - set(images) - set(beside):
        raise MissingInputError(
            sentence(
                found[min(lonely)],
                found=f"{len(lonely)} {what}{'s' * (len(lonely) > 1)} without an image: "
                f"{some(lonely)}",
                wanted=f"an image for every {what}",
                fix=f"add the image or remove the {what}",
            )
        )


def refuse_unlabelled(images: Mapping[str, Path], bare_ids: Collection[str], labels: str) -> None:
    """Raise MissingInputError when there are images that lack the label they must have."""
    if bare_ids:
        raise MissingInputError(
            sentence(
                images[min(bare_ids)],
                found=f"{len(bare_ids)} image{'s' * (len(bare_ids) > 1)} without a "
                f"label: {some(bare_ids)}",
                wanted=f"a file of the same name in {labels}",
                fix="add the label, remove the image, set good_without_mask if such images are "
                "good, or labels_optional to predict only",
            )
        )


def refuse_folders_without_masks(
    folder_of: Mapping[str, str], labels: Collection[str], defects: Collection[str]
) -> None:
    """Raise MissingInputError when a class folder has images and not one mask.

    ``folder_of`` names each image's class folder, ``defects`` those that hold defects.
    """
    marked = {folder_of[name] for name in labels if name in folder_of}
    for folder in sorted(set(folder_of.values()) & set(defects)):
        if folder not in marked:
            count = sum(1 for other in folder_of.values() if other == folder)
            raise MissingInputError(
                sentence(
                    f"class_folders: {folder}",
                    found=f"{count} image{'s' * (count > 1)} and no mask",
                    wanted="masks of its defects",
                    fix="add them, correct label_suffix or label_endings, "
                    "or set the folder to null if its images are good",
                )
            )
