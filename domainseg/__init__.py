"""Domain-specific segmentation: train, predict, evaluate, report.

The functions named here are loaded when they are first asked for, so that
``import domainseg`` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainseg.evaluate import evaluate_labels as evaluate_labels
    from domainseg.evaluate import evaluate_model as evaluate
    from domainseg.images import open_image as open_image
    from domainseg.inspection import inspect as report
    from domainseg.judge import judge as judge
    from domainseg.predict import predict as predict
    from domainseg.recipe import load_recipe as load_recipe
    from domainseg.train import train as train

__version__ = "0.1.0"

_FUNCTIONS = {
    "evaluate": ("domainseg.evaluate", "evaluate_model"),
    "evaluate_labels": ("domainseg.evaluate", "evaluate_labels"),
    "judge": ("domainseg.judge", "judge"),
    "load_recipe": ("domainseg.recipe", "load_recipe"),
    "open_image": ("domainseg.images", "open_image"),
    "predict": ("domainseg.predict", "predict"),
    "report": ("domainseg.inspection", "inspect"),
    "train": ("domainseg.train", "train"),
}
"""Public name: module and name of the function."""

__all__ = [
    "__version__",
    "evaluate",
    "evaluate_labels",
    "judge",
    "load_recipe",
    "open_image",
    "predict",
    "report",
    "train",
]


class _Package(ModuleType):
    """This package, in which a function keeps its name from the submodule of that name.

    Importing ``domainseg.train`` makes Python bind the submodule to ``train`` in this
    package, over the function or before anyone asked for it, so that what
    ``domainseg.train`` is would depend on what was imported. That binding is dropped; the
    submodules are still imported by ``from domainseg.train import ...``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _FUNCTIONS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _FUNCTIONS:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, function = _FUNCTIONS[name]
        found = getattr(import_module(module), function)
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
