"""Errors that a user can meet: each is one sentence, each carries its exit code.

Every error is our own type and the standard type that fits, so that a script
may catch either. The command line prints the sentence and leaves with
``exit_code``; a traceback reaching a user is a defect of domainseg.
"""

from __future__ import annotations

from typing import ClassVar


class DomainsegError(Exception):
    """Anything domainseg refuses; ``exit_code`` is what the command line returns."""

    exit_code: ClassVar[int] = 5


class GateError(DomainsegError):
    """A gate or tolerance was not met: the work was done, its answer is no."""

    exit_code = 1


class UsageError(DomainsegError, ValueError):
    """The command, an option or an argument is not one that exists or fits."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe, rules file or data card says something that cannot be done."""


class InputError(DomainsegError, ValueError):
    """Data that was handed in cannot be used."""

    exit_code = 3


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder that was named is not there or is empty."""

    # OSError formats itself from (errno, strerror) when it has two arguments;
    # ours has one, the sentence, and must print as it was written.
    def __str__(self) -> str:
        return str(self.args[0])


class ModelFileError(InputError):
    """A model file is truncated, is not ours, or does not fit its recipe."""


class OutputError(DomainsegError, OSError):
    """A result could not be written: no room, no permission, or already there."""

    exit_code = 3

    def __str__(self) -> str:
        return str(self.args[0])


class IndeterminateError(DomainsegError):
    """No verdict is possible: evidence is missing, which is neither pass nor fail."""

    exit_code = 4


def sentence(where: object, *, found: str, wanted: str, fix: str) -> str:
    """Return the one sentence an error is made of.

    >>> sentence("a.png", found="no label", wanted="labels/a.png", fix="add it or remove a.png")
    'a.png: found no label, wanted labels/a.png; add it or remove a.png.'
    """
    return f"{where}: found {found}, wanted {wanted}; {fix}."
