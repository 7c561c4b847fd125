"""Votes of an object's pixels for its class: by hand, and whatever the blocks."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from domainseg.instances.class_votes import vote_columns, votes_in
from domainseg.instances.sums import elected
from domainseg.records import UNSEEN

NAMES = ("pit", "crack", "fray")


def test_shares_by_hand() -> None:
    labels = np.array([[1, 1, 1, 1, 0], [2, 2, 3, 3, 4]])
    classes = np.array([[0, 0, 0, 2, 1], [1, 1, 0, 2, UNSEEN]], np.uint8)
    table = pl.DataFrame({"label": [1, 2, 3, 4], "class": ["pit", "crack", "pit", "fray"]})
    found = vote_columns(table, [votes_in(labels, classes)], NAMES)
    assert found["class_share"].to_list() == [0.75, 1.0, 0.5, None]
    assert found["second_class"].to_list() == ["fray", None, "fray", None]
    assert found["second_share"].to_list() == [0.25, 0.0, 0.5, None]


def test_no_object_has_no_votes() -> None:
    table = pl.DataFrame({"label": [], "class": []}, schema={"label": pl.Int64, "class": pl.String})
    assert vote_columns(table, [], NAMES).height == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 11), st.integers(1, 11))
def test_blocks_do_not_matter_and_the_elected_class_has_most_votes(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (11, 11))
    classes = rng.integers(0, 3, (11, 11)).astype(np.uint8)
    whole = votes_in(labels, classes)
    ids = np.unique(labels[labels > 0])
    own = elected(whole, int(ids.max()) + 1)[ids]
    table = pl.DataFrame({"label": ids, "class": [NAMES[index] for index in own]})
    blocks = [
        votes_in(labels[y : y + height, x : x + width], classes[y : y + height, x : x + width])
        for y in range(0, 11, height)
        for x in range(0, 11, width)
    ]
    found = vote_columns(table, blocks, NAMES)
    assert found.equals(vote_columns(table, [whole], NAMES))
    assert (found["class_share"] >= found["second_share"]).all()
    for label, share, index in zip(ids, found["class_share"], own, strict=True):
        assert share == np.mean(classes[labels == label] == index)
