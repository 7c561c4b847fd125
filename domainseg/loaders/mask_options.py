"""Which options of a mask folder can stand together."""

from __future__ import annotations

from collections.abc import Mapping

from domainseg.errors import RecipeError, sentence
from domainseg.loaders.folder import ENDINGS
from domainseg.loaders.index import refuse_columns_without_index
from domainseg.loaders.masks import BACKGROUND, IGNORE, class_names
from domainseg.loaders.pairing import Role
from domainseg.loaders.places import compiled, is_folder_column, owners


def check_classes(
    masks: str,
    classes: Mapping[int, str] | None,
    label_names: Mapping[str, str] | None,
    class_folders: Mapping[str, str | None] | None,
) -> None:
    """Raise RecipeError unless the classes are named where this kind of mask has them."""
    for option, table, kinds in (
        ("classes", classes, ("semantic", "yolo_seg")),
        ("label_names", label_names, ("labelme",)),
    ):
        if (masks in kinds) != bool(table):
            what = "value" if option == "classes" else "label"
            raise _refused(
                option,
                found=f"{'a table' if table else 'none'} with masks: {masks}",
                wanted=f"a table of {what} to name with masks: {' or '.join(kinds)}, "
                "and none otherwise",
                fix="change one of them",
            )
        if table and not class_names(table):
            raise _refused(
                option,
                found=f"no name but {BACKGROUND} and {IGNORE}",
                wanted="a class",
                fix="name one",
            )
    if class_folders is not None:
        _check_folders(masks, class_folders)


def _check_folders(masks: str, folders: Mapping[str, str | None]) -> None:
    if masks not in ("labels", "binary", "regions"):
        raise _refused(
            "class_folders",
            found=f"masks: {masks}, which name the classes themselves",
            wanted="masks: labels, binary or regions",
            fix="change one of them",
        )
    names = owners(folders).values()
    if not names:
        raise _refused(
            "class_folders", found="no class", wanted="one folder of defects or more", fix="add it"
        )
    for name in names:
        if name in (BACKGROUND, IGNORE):
            raise _refused(
                "class_folders",
                found=f"the class {name!r}",
                wanted="names of classes, and null or good for good images",
                fix="write another name",
            )


def check_threshold(masks: str, threshold: int | None) -> None:
    """Raise RecipeError for a threshold that nothing uses or that is 0."""
    if threshold is not None and (masks != "binary" or threshold < 1):
        raise _refused(
            "threshold",
            found=f"{threshold} with masks: {masks}",
            wanted="1 or more with masks: binary, and none otherwise",
            fix="change one of them",
        )


def check_unmarked(good_without_mask: bool, labels_optional: bool) -> None:
    """Raise RecipeError when images without a mask are to be good and not annotated at once."""
    if good_without_mask and labels_optional:
        raise _refused(
            "good_without_mask",
            found="labels_optional too",
            wanted="images without a mask to be good, or to predict only",
            fix="remove one of the two",
        )


def check_endings(images: tuple[str, ...], labels: tuple[str, ...], masks: str) -> None:
    """Raise RecipeError for endings nobody can read, or of masks where polygons are read."""
    for option, endings in (("image_endings", images), ("label_endings", labels)):
        for ending in endings:
            if ending.lower() not in ENDINGS:
                raise _refused(
                    option,
                    found=f"{ending!r}",
                    wanted=f"some of {', '.join(ENDINGS)}",
                    fix="correct it",
                )
    if labels and masks in ("yolo_seg", "labelme"):
        raise _refused(
            "label_endings",
            found=f"{', '.join(labels)} with masks: {masks}",
            wanted="none, as these files have one ending",
            fix="remove it",
        )


def check_columns(index: str | None, *columns: str | None) -> None:
    """Raise RecipeError when a column is asked for that neither folders nor an index have."""
    refuse_columns_without_index(index, *(c for c in columns if not is_folder_column(c)))


def check_groups(group: str | None, pattern: str | None, gap: int | None) -> None:
    """Raise RecipeError when groups come from two places, or cannot be found."""
    if pattern is not None:
        compiled(pattern)
        if group is not None:
            raise _refused(
                "group_pattern",
                found=f"group: {group} too",
                wanted="groups from one of the two",
                fix="remove one",
            )
    if gap is not None and (pattern is None or gap < 0):
        raise _refused(
            "group_gap",
            found=f"{gap}" if pattern is not None else "no group_pattern",
            wanted="0 or more, and a group_pattern that finds a number",
            fix="change it",
        )


def check_apart(images: Role, labels: Role) -> None:
    """Raise RecipeError when images and labels have one folder and nothing tells them apart."""
    if not images.apart_from(labels):
        raise _refused(
            "labels",
            found=f"images and labels both named *{images.suffix} in {images.folder}",
            wanted="names that tell them apart",
            fix="set label_suffix, image_endings and label_endings, or another folder",
        )


def _refused(option: str, *, found: str, wanted: str, fix: str) -> RecipeError:
    return RecipeError(sentence(option, found=found, wanted=wanted, fix=fix))
