"""A pathology slide from its file to outlines that QuPath reads, through the command line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from shapely.geometry import shape

from domainseg.cli.app import run
from domainseg.images import open_image

SLIDE = Path(__file__).parents[1] / ".." / "shared" / "data" / "slides/cmu-1-small-region.svs"
Write = Callable[..., Path]


@pytest.mark.skipif(not SLIDE.exists(), reason="no ../shared/data/slides")
def test_a_slide_becomes_outlines_in_pixels_of_its_full_resolution(
    tmp_path: Path, bright_model: Write
) -> None:
    model = bright_model(tiling={"core_px": 1024}, instances={"min_area_px": 30})
    assert run(["predict", str(model), str(SLIDE), "-o", str(tmp_path)]) == 0
    (folder,) = [path.parent for path in tmp_path.rglob("run.json")]
    table = pl.read_parquet(folder / "objects.parquet")
    with open_image(SLIDE) as slide:
        _, height, width = slide.shape
        assert slide.spacing_um is not None
        pixel_um2 = float(np.prod(slide.spacing_um))
    features = json.loads((folder / "objects.geojson").read_text())["features"]
    assert len(features) == table.height > 10
    for feature, row in zip(features, table.iter_rows(named=True), strict=True):
        assert set(feature) == {"type", "id", "geometry", "properties"}
        properties = feature["properties"]
        assert str(uuid.UUID(feature["id"])) == row["id"]
        assert properties["objectType"] == "detection"
        assert properties["classification"]["name"] == row["class"]
        assert properties["measurements"]["area_px"] == row["area_px"]
        assert properties["measurements"]["area_um2"] == pytest.approx(row["area_px"] * pixel_um2)
        parts = feature["geometry"]["coordinates"]
        rings = [r for p in ([parts] if _single(feature) else parts) for r in p]
        assert all(ring[0] == ring[-1] and len(ring) >= 5 for ring in rings)
        outline = shape(feature["geometry"])
        assert outline.is_valid
        assert outline.area == row["area_px"]
        x0, y0, x1, y1 = outline.bounds
        assert (y0, x0, y1, x1) == (row["y0_px"], row["x0_px"], row["y1_px"], row["x1_px"])
        assert (x0 >= 0, y0 >= 0, x1 <= width, y1 <= height) == (True,) * 4


def _single(feature: dict[str, dict[str, str]]) -> bool:
    return feature["geometry"]["type"] == "Polygon"
