"""How sure the class of an object is: the share of its pixels that vote for it, and the next.

Every pixel of an object votes for the likeliest class there; the object has the class with
most votes (`elected`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.instances.sums import add_votes
from domainseg.records import UNSEEN, Array


def votes_in(labels: Array, classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the votes in a block: rows of label, class and pixels, int64 ``(M, 3)``.

    ``labels`` ``(h, w)`` is 0 where no object is, ``classes`` ``(h, w)`` UNSEEN where nobody
    looked.
    """
    voting = (labels > 0) & (classes != UNSEEN)
    owners = labels[voting].astype(np.int64)
    rows = np.stack([owners, classes[voting].astype(np.int64), np.ones_like(owners)], 1)
    return add_votes(rows)


def vote_columns(
    table: pl.DataFrame, votes: Sequence[NDArray[np.int64]], class_names: Sequence[str]
) -> pl.DataFrame:
    """Return ``class_share``, ``second_class`` and ``second_share`` of a table's objects.

    ``votes`` are those of the blocks of the whole image. ``class_share`` is the share of the
    votes for the object's own class, ``second_class`` the other class with most votes (of
    equals the first), null without one, ``second_share`` its share. All are null of an object
    that has no votes.
    """
    names, of_table = np.array(class_names), table["label"].to_numpy()
    rows = add_votes(np.concatenate([np.zeros((0, 3), np.int64), *votes]))
    count = int(max(of_table.max(initial=0), rows[:, 0].max(initial=0))) + 1
    total = np.bincount(rows[:, 0], rows[:, 2], count)
    own = np.full(count, -1, np.int64)
    own[of_table] = [list(class_names).index(name) for name in table["class"]]
    mine = rows[:, 1] == own[rows[:, 0]]
    held = np.bincount(rows[mine, 0], rows[mine, 2], count)
    others = rows[~mine]
    second, behind = np.full(count, -1, np.int64), np.zeros(count)
    # The last write of a label wins: fewest votes first, of equals the highest class first.
    others = others[np.lexsort((-others[:, 1], others[:, 2], others[:, 0]))]
    second[others[:, 0]], behind[others[:, 0]] = others[:, 1], others[:, 2]
    known = total[of_table] > 0
    safe = np.where(known, total[of_table], 1.0)
    return pl.DataFrame(
        {
            "class_share": _where(known, held[of_table] / safe),
            "second_class": [
                str(names[index]) if index >= 0 else None for index in second[of_table].tolist()
            ],
            "second_share": _where(known, behind[of_table] / safe),
        },
        schema={
            "class_share": pl.Float64,
            "second_class": pl.String,
            "second_share": pl.Float64,
        },
    )


def _where(known: NDArray[np.bool_], values: NDArray[np.float64]) -> list[float | None]:
    return [one if is_known else None for one, is_known in zip(values.tolist(), known, strict=True)]
