"""Splits: no group in two parts, whatever the rule."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainseg.errors import InputError, MissingInputError, RecipeError
from domainseg.loaders.splits import PARTS, Split, part_of, split
from domainseg.records import Entry


def entries(*names: str, **columns: str) -> tuple[Entry, ...]:
    return tuple(Entry(name, group=name, columns=dict(columns)) for name in names)


def by_column(**values: str) -> tuple[Entry, ...]:
    return tuple(Entry(k, group=k, columns={"split": v}) for k, v in values.items())


def refusal(found: tuple[Entry, ...], options: Split, root: Path = Path()) -> str:
    with pytest.raises(InputError) as caught:
        split(found, options, root=root)
    return str(caught.value)


@given(
    st.lists(st.tuples(st.text(max_size=4), st.integers(0, 5)), unique=True, max_size=40),
    st.integers(),
    st.floats(0, 0.5),
    st.floats(0, 0.49),
)
def test_crops_of_one_plate_never_straddle_a_split(
    crops: list[tuple[str, int]], seed: int, val: float, test: float
) -> None:
    found = [Entry(f"anchor-{number}", group=f"anchor-{number}") for number in range(3)]
    found += [Entry(f"{plate}/{number}", group=plate) for plate, number in crops]
    parts = split(found, Split(seed=seed, val=val, test=test))
    groups = [{entry.group for entry in getattr(parts, part)} for part in PARTS]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    together = [entry.id for part in PARTS for entry in getattr(parts, part)]
    assert sorted(together) == sorted(entry.id for entry in found)


@given(st.integers(3, 12), st.integers(), st.floats(0, 0.5), st.floats(0, 0.49))
def test_every_part_with_a_share_has_a_group_however_few_there_are(
    count: int, seed: int, val: float, test: float
) -> None:
    found = entries(*map(str, range(count)))
    options = Split(seed=seed, val=val, test=test)
    parts = split(found, options)
    shares = {"train": True, "val": test + val > test, "test": test > 0}
    assert {part: bool(getattr(parts, part)) for part in PARTS} == shares
    assert split(found[::-1], options) == parts


@given(st.integers(), st.integers(3, 12))
def test_as_few_groups_move_as_parts_were_empty(seed: int, count: int) -> None:
    found = entries(*map(str, range(count)))
    options = Split(seed=seed, val=0.15, test=0.15)
    drawn = {entry.id: part_of(entry.group, options) for entry in found}
    parts = split(found, options)
    moved = [e.id for part in PARTS for e in getattr(parts, part) if drawn[e.id] != part]
    assert len(moved) == len(set(PARTS) - set(drawn.values()))


def share_of(name: str, seed: int) -> float:
    return int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:16], 16) / 2**64


def test_the_group_with_the_nearest_hash_fills_an_empty_part() -> None:
    # Shares by hand: all four train by their hashes.
    shares = {name: share_of(name, 3) for name in map(str, range(200))}
    names = [name for name, share in shares.items() if share > 0.4][:4]
    low, second, *others = sorted(names, key=lambda name: shares[name])
    parts = split(entries(*names), Split(seed=3, val=0.2, test=0.1))
    assert [e.id for e in parts.val] == [low]
    assert [e.id for e in parts.test] == [second]
    assert {e.id for e in parts.train} == set(others)


@given(st.permutations([f"p{i}" for i in range(12)]))
def test_the_order_of_the_images_does_not_matter(names: list[str]) -> None:
    options = Split(val=0.3, test=0.3)
    assert split(entries(*names), options) == split(entries(*sorted(names)), options)


@given(st.text(), st.integers(), st.floats(0, 0.4), st.floats(0, 0.3), st.floats(0, 0.29))
def test_a_larger_validation_share_takes_from_training_only(
    group: str, seed: int, test: float, val: float, more: float
) -> None:
    small = part_of(group, Split(seed=seed, test=test, val=val))
    large = part_of(group, Split(seed=seed, test=test, val=val + more))
    assert large == small or (small, large) == ("train", "val")


def test_the_hash_is_sha256_of_seed_and_group_as_a_share() -> None:
    shares = {name: share_of(name, 7) for name in (f"g{i}" for i in range(50))}
    parts = split(entries(*shares), Split(seed=7, val=0.2, test=0.1))
    assert {e.id for e in parts.test} == {name for name, u in shares.items() if u < 0.1}
    assert {e.id for e in parts.val} == {name for name, u in shares.items() if 0.1 <= u < 0.3}


def test_the_shares_are_reached_over_many_groups() -> None:
    parts = split(entries(*map(str, range(20_000))), Split(val=0.2, test=0.1))
    assert len(parts.val) == pytest.approx(4000, abs=200)
    assert len(parts.test) == pytest.approx(2000, abs=150)


def test_a_column_says_the_part_in_its_own_words() -> None:
    found = by_column(a="fit", b="tune", c="test", d="spare")
    values = {"train": "fit", "val": "tune"}
    parts = split(found, Split(by="column", values=values, leave_out=("spare",)))  # type: ignore[arg-type]
    assert [[e.id for e in getattr(parts, part)] for part in PARTS] == [["a"], ["b"], ["c"]]


def test_lists_name_the_parts_and_leave_the_rest_out(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("# the first plate\nb.png\n\na  # good\n")
    (tmp_path / "test.csv").write_text("image,grade\nc.tif,1\n")
    files = {"train": "train.txt", "test": "test.csv"}
    parts = split(entries("a", "b", "c", "d"), Split(by="files", files=files), root=tmp_path)  # type: ignore[arg-type]
    assert [[e.id for e in getattr(parts, part)] for part in PARTS] == [["a", "b"], [], ["c"]]


def test_a_group_that_straddles_a_given_split_is_refused() -> None:
    found = (
        Entry("a1", group="P1", columns={"split": "train"}),
        Entry("a2", group="P1", columns={"split": "test"}),
    )
    assert refusal(found, Split(by="column")) == (
        "group P1: found images in train and in test, wanted a whole group in one part; "
        "change the split or the column that groups."
    )


def test_nothing_to_train_on_is_refused() -> None:
    assert refusal(by_column(a="val", b="test"), Split(by="column")) == (
        "split: found no image to train on among 2, wanted at least one; "
        "change the rule (by column) or add images."
    )


def test_fewer_groups_than_parts_are_refused() -> None:
    assert refusal(entries("a", "b"), Split()) == (
        "split: found 2 images, wanted an image for each of train, val, test; "
        "add images, or set data.split.val or data.split.test to 0."
    )
    plates = tuple(Entry(name, group="P1") for name in "abcd")
    assert refusal(plates, Split(test=0)) == (
        "split: found 4 images of 1 group, wanted a group for each of train, val; "
        "add images, or set data.split.val or data.split.test to 0."
    )
    assert [e.id for e in split(plates, Split(val=0, test=0)).train] == list("abcd")
    assert refusal((), Split()) == (
        "split: found no image to train on among 0, wanted at least one; "
        "change the rule (by hash) or add images."
    )


def test_an_id_that_comes_twice_is_refused() -> None:
    assert refusal(entries("a", "b", "a"), Split()) == (
        "data set: found a twice, wanted every id once; rename or remove one."
    )


def test_a_column_that_is_missing_or_says_something_else_is_refused() -> None:
    assert refusal(entries("a", plate="P1"), Split(by="column")) == (
        "a: found columns plate, wanted a column 'split' to split by; "
        "name an index with that column or split by hash."
    )
    assert refusal(by_column(a="trian"), Split(by="column")) == (
        "a: found 'trian' in column 'split', wanted one of 'train', 'val', 'test'; "
        "correct it, map it in split.values, or add it to split.leave_out."
    )


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    files = Split(by="files", files={"train": "t.txt", "val": "v.csv"})
    with pytest.raises(MissingInputError) as caught:
        split(entries("a"), files, root=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/t.txt: found no file, wanted a list of ids; correct split.files."
    )
    (tmp_path / "t.txt").write_text("a\nz.png\n")
    assert refusal(entries("a", "b"), files, tmp_path) == (
        f"{tmp_path}/t.txt:2: found 'z.png', which is no image of the data set, wanted one of its "
        "2 ids; correct or remove the line."
    )
    (tmp_path / "t.txt").write_text("a\n")
    (tmp_path / "v.csv").write_text("name\na\n")
    assert refusal(entries("a", "b"), files, tmp_path) == (
        f"{tmp_path}/v.csv: found columns name, wanted a column 'image' with the ids; "
        "rename the column or set split.key."
    )
    (tmp_path / "v.csv").write_text("image\na\n")
    assert refusal(entries("a", "b"), files, tmp_path) == (
        f"{tmp_path}/v.csv:2: found 'a', already listed for train, wanted every image once; "
        "remove one of the lines."
    )


def test_options_that_leave_nothing_to_train_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        Split(val=0.6, test=0.4)
    assert str(caught.value) == (
        "split: found val 0.6 and test 0.4, wanted shares of at least 0 that leave something to "
        "train; make them smaller."
    )
    with pytest.raises(RecipeError) as caught:
        Split(by="files", files={"test": "t.txt"})
    assert str(caught.value) == (
        "split.files: found lists of test, wanted at least the list of train; "
        "name it, or split by column or hash."
    )


def test_validation_is_drawn_from_training_by_hash_where_a_column_names_none() -> None:
    shares = {name: share_of(name, 5) for name in (f"g{i}" for i in range(60))}
    parts = {name: "test" if i % 3 == 0 else "train" for i, name in enumerate(shares)}
    found = by_column(**parts)
    made = split(found, Split(by="column", seed=5, val_from_train=0.2))
    trained = {name for name, part in parts.items() if part == "train"}
    assert {e.id for e in made.val} == {name for name in trained if shares[name] < 0.2}
    assert {e.id for e in made.train} == {name for name in trained if shares[name] >= 0.2}
    assert {e.id for e in made.test} == set(parts) - trained
    without = split(found, Split(by="column", seed=5))
    assert (len(without.val), {e.id for e in without.train}) == (0, trained)


@given(st.integers(), st.integers(2, 8), st.floats(0.001, 0.999))
def test_validation_drawn_from_training_leaves_a_group_on_either_side(
    seed: int, count: int, share: float
) -> None:
    crops = [
        Entry(f"{group}/{crop}", group=f"{group}", columns={"split": "train"})
        for group in range(count)
        for crop in range(2)
    ]
    made = split(crops, Split(by="column", seed=seed, val_from_train=share))
    sides = [{entry.group for entry in part} for part in (made.train, made.val)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert len(made.train) + len(made.val) == 2 * count


def test_lists_without_one_for_validation_may_draw_it_from_training(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    files = Split(by="files", files={"train": "train.txt"}, val_from_train=0.01, seed=0)
    made = split(entries("a", "b", "c", "d"), files, root=tmp_path)
    lowest = min("abc", key=lambda name: share_of(name, 0))
    assert [e.id for e in made.val] == [lowest]
    assert {e.id for e in made.train} == set("abc") - {lowest}


def test_validation_from_training_is_refused_where_it_cannot_be_meant() -> None:
    assert refusal(by_column(a="train", b="val"), Split(by="column", val_from_train=0.1)) == (
        "split.val_from_train: found 0.1, yet column names b for val, wanted one of the two; "
        "set it to 0."
    )
    assert refusal(by_column(a="train", b="test"), Split(by="column", val_from_train=0.1)) == (
        "split.val_from_train: found 1 group to train on, wanted a group for each of train, val; "
        "add images or set it to 0."
    )
    assert refusal(by_column(b="test"), Split(by="column", val_from_train=0.1)) == (
        "split: found no image to train on among 1, wanted at least one; "
        "change the rule (by column) or add images."
    )
    with pytest.raises(RecipeError) as caught:
        Split(val_from_train=0.1)
    assert str(caught.value) == (
        "split.val_from_train: found 0.1 by hash, wanted 0 by hash, whose share is val, else from "
        "0 to below 1; change it."
    )
    with pytest.raises(RecipeError) as caught:
        Split(by="column", val_from_train=1.0)
    assert str(caught.value) == (
        "split.val_from_train: found 1, wanted 0 by hash, whose share is val, else from 0 to "
        "below 1; change it."
    )
