"""Augmentation named in the recipe; the only file that knows albumentations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import RecipeError, sentence

Step = Mapping[str, Mapping[str, Any]]


@cache
def _library() -> ModuleType:
    # The library asks a server for newer versions when it is imported, unless told not
    # to by this variable; it knows no other switch.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    # OpenCV's own threads fight with the loader's processes for the same cores.
    import cv2

    cv2.setNumThreads(0)
    return albumentations  # type: ignore[no-any-return]


class Augmentation:
    """A pipeline of named steps; the same seed gives the same result in every process."""

    def __init__(self, steps: Sequence[Step], *, crop_px: int) -> None:
        """Build the steps, each ``{Name: {option: value}}``; the centre is cut out last.

        Where a step made it smaller than the crop it is 0 around, in image and planes.

        Raises:
            RecipeError: a step that albumentations does not know, or options it refuses.
        """
        built = [_build(index, step) for index, step in enumerate(steps)]
        library = _library()
        self._compose = library.Compose(
            [*built, library.CenterCrop(crop_px, crop_px, pad_if_needed=True)]
        )

    def __call__(
        self, image: NDArray[np.float32], planes: NDArray[np.float32], *, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``image (C, h, w)`` and ``planes (T, h, w)``, augmented and cropped, float32.

        Geometry moves both alike (planes by nearest neighbour, 0 where nothing was); the
        intensities of the image stay in [0, 1].
        """
        self._compose.set_random_seed(seed)
        made = self._compose(
            image=np.ascontiguousarray(np.clip(image, 0, 1).transpose(1, 2, 0)),
            mask=np.ascontiguousarray(planes.transpose(1, 2, 0)),
        )
        shape = made["image"].shape[:2]
        return (
            _first(made["image"].reshape(*shape, -1)),
            _first(made["mask"].reshape(*shape, -1)),
        )


def _first(planes: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(planes.transpose(2, 0, 1), np.float32)


def _build(index: int, step: Step) -> Any:
    where = f"augment[{index}]"
    if len(step) != 1:
        raise RecipeError(
            sentence(where, found=f"{len(step)} names", wanted="one, as `Name: {}`", fix="split it")
        )
    ((name, options),) = step.items()
    library = _library()
    if name not in _transforms(library):
        near = get_close_matches(name, _transforms(library), n=1)
        hint = f"perhaps '{near[0]}'" if near else "see albumentations 2.0.8"
        raise RecipeError(
            sentence(where, found=f"'{name}'", wanted="a transform of albumentations", fix=hint)
        )
    import warnings

    with warnings.catch_warnings():
        # It warns about an option that it does not know and goes on without it.
        warnings.simplefilter("error")
        try:
            return getattr(library, name)(**{key: _tuple(value) for key, value in options.items()})
        except (TypeError, ValueError, UserWarning) as error:
            raise RecipeError(
                sentence(
                    f"{where}: {name}",
                    found=" ".join(str(error).split()),
                    wanted="options that albumentations 2.0.8 takes",
                    fix="correct the step",
                )
            ) from error


def _transforms(library: ModuleType) -> list[str]:
    """Return the names that a step may have."""
    kinds = {name: getattr(library, name) for name in dir(library)}
    return [
        name
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, library.BasicTransform)
    ]


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value
