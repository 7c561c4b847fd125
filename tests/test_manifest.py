"""The table of images: what it may say, what is refused with its line, and units of several."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from domainseg.errors import InputError, MissingInputError
from domainseg.manifest import image_name, read_manifest
from domainseg.quality.lot import Dies, ImageCheck, Lot, Unit, defect_table
from domainseg.units import by_unit


def table(folder: Path, text: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_known_of_each_image_is_read(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "\ufeffimage,unit_id,lot,step,captured_at,station,pixel_size_um_x,pixel_size_um_y\n"
        'folder/a.ome.tif,P1,L7,"etch, wet",2026-01-02,S1,0.5,0.25\n'
        "b.png,P1,L7,,,,,\n",
    )
    found = read_manifest(path)
    assert list(found) == ["a", "b"]
    assert found["a"].unit == "P1"
    assert found["a"].spacing_um == (0.25, 0.5)
    assert dict(found["a"].about) == {
        "step": "etch, wet",
        "captured at": "2026-01-02",
        "station": "S1",
    }
    assert found["b"].spacing_um is None
    assert found["b"].line == 3


def test_semicolons_part_columns_too(tmp_path: Path) -> None:
    assert read_manifest(table(tmp_path, "image;unit_id\na;P\n"))["a"].unit == "P"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,lot\na,b\n", "line 1: found no column unit_id"),
        ("image,unit_id,colour\na,b,c\n", "line 1: found the column 'colour'"),
        ("image,unit_id,image\na,b,c\n", "line 1: found two columns image"),
        ("image,unit_id\n", "line 1: found no image"),
        ("image,unit_id\na\n", "line 2: found another number of values"),
        ("image,unit_id\na,b,c\n", "line 2: found another number of values"),
        ("image,unit_id\na,\n", "line 2: found no unit_id"),
        ("image,unit_id\na,P\na.png,Q\n", "line 3: found the image a again, .* line 2"),
        ("image,unit_id,pixel_size_um_x\na,P,1\n", "line 2: found the pixel size along one axis"),
        (
            "image,unit_id,pixel_size_um_x,pixel_size_um_y\na,P,-1,1\n",
            "line 2: found pixel_size_um_x '-1'",
        ),
        (
            "image,unit_id,pixel_size_um_x,pixel_size_um_y\na,P,1,nan\n",
            "line 2: found pixel_size_um_y 'nan'",
        ),
        ("", "line 1: found no column image"),
    ],
)
def test_what_is_no_such_table_is_refused_with_its_line(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read_manifest(table(tmp_path, text))


def test_no_file_and_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="found nothing"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(InputError, match="found no text in UTF-8"):
        read_manifest(tmp_path / "bytes.csv")


@pytest.mark.parametrize(
    ("text", "name"),
    [("a/b.tif", "b"), ("c:\\d\\e.OME.TIFF", "e"), ("wafer.12", "wafer.12"), ("f.svs", "f")],
)
def test_a_name_is_without_folder_and_ending(text: str, name: str) -> None:
    assert image_name(text) == name


def image(
    name: str, *, area: float | None = 2.0, focus: float = 0.5, like: bool | None = None
) -> Lot:
    unit = Unit(
        name=name,
        area_cm2=area,
        area_mpx=3.0,
        check=ImageCheck(focus, 0.0, 1.0, like=int(like is True), unlike=int(like is False)),
        source=name,
        sha256=name * 8,
    )
    defects = defect_table({"unit": [name], "id": [name], "class": ["a"], "x_um": [1.0]}, 1)
    return Lot((unit,), defects, ("a",))


def together(folder: Path, text: str, *lots: Lot) -> Lot:
    lot = Lot(
        tuple(unit for one in lots for unit in one.units),
        pl.concat([one.defects for one in lots]),
        ("a",),
    )
    return by_unit(lot, read_manifest(table(folder, text)))


def test_images_of_a_unit_add_up_and_the_worst_of_their_checks_is_its(tmp_path: Path) -> None:
    made = together(
        tmp_path,
        "image,unit_id,lot\nc,Q,L\na,P,L\nb,P,L\n",
        image("a"),
        image("b", focus=0.1),
        image("c"),
    )
    assert [unit.name for unit in made.units] == ["Q", "P"]
    unit = made.units[1]
    assert (unit.lot, unit.area_cm2, unit.area_mpx) == ("L", 4.0, 6.0)
    assert unit.check == ImageCheck(0.1, 0.0, 1.0, images=2)
    assert made.defects["unit"].to_list() == ["Q", "P", "P"]
    # Where the images of a unit lie on it is not known.
    assert made.defects["x_um"].to_list() == [1.0, None, None]


def test_images_like_the_training_and_unlike_it_add_up(tmp_path: Path) -> None:
    images = [image("a", like=True), image("b", like=None), image("c", like=False)]
    (unit,) = together(tmp_path, "image,unit_id\na,P\nb,P\nc,P\n", *images).units
    assert unit.check == ImageCheck(0.5, 0.0, 1.0, images=3, like=1, unlike=1)


def test_an_image_without_a_run_is_one_that_could_not_be_read(tmp_path: Path) -> None:
    made = together(tmp_path, "image,unit_id\na,P\nb,P\nc,Q\n", image("a"))
    assert [unit.failed for unit in made.units] == [("b",), ("c",)]
    assert made.units[1].area_cm2 == 0.0


def test_an_area_that_is_not_known_makes_the_units_unknown(tmp_path: Path) -> None:
    made = together(tmp_path, "image,unit_id\na,P\nb,P\n", image("a"), image("b", area=None))
    assert made.units[0].area_cm2 is None


def test_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3: found P in the lots K, L"):
        together(tmp_path, "image,unit_id,lot\na,P,L\nb,P,K\n", image("a"), image("b"))
    lot = image("a")
    index = pl.DataFrame({"x": [0], "y": [0]}).to_numpy()
    wafer = Unit(name="a", dies=Dies(index, (1.0, 1.0), (0.0, 0.0), 1))
    with pytest.raises(InputError, match="line 3: found a second image of the wafer P"):
        together(
            tmp_path,
            "image,unit_id\na,P\nb,P\n",
            Lot((wafer,), lot.defects, ("a",)),
            image("b"),
        )
