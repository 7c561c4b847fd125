"""Where the numbers come from: what was inspected, with which model, by which software."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from domainseg.report.document import (
    COUNT,
    MEASURE,
    Block,
    Column,
    Fact,
    Facts,
    Section,
    Table,
    Value,
)
from domainseg.report.evidence import Evidence, InspectedImage, Model
from domainseg.report.sections.wording import selected


def provenance(evidence: Evidence) -> Section:
    """Return models, conditions, software and images, each distinct one once."""
    blocks: list[Block] = []
    models = _distinct([image.model for image in evidence.images])
    for number, model in enumerate(models, 1):
        many = f" {number}" if len(models) > 1 else ""
        blocks.append(Facts(f"model-{number}", f"Model{many}", tuple(_model_facts(model))))
        if model.recipe:
            facts = tuple(_flat(model.recipe))
            blocks.append(Facts(f"recipe-{number}", f"Recipe of the model{many}", facts, True))
    conditions = _distinct([_conditions(image) for image in evidence.images])
    for number, found in enumerate(conditions, 1):
        many = f" {number}" if len(conditions) > 1 else ""
        blocks.append(Facts(f"conditions-{number}", f"Tiles and device{many}", found))
    versions = _distinct([tuple(_flat(image.versions)) for image in evidence.images])
    for number, used in enumerate(versions, 1):
        many = f" {number}" if len(versions) > 1 else ""
        blocks.append(Facts(f"software-{number}", f"Software{many}", used))
    blocks.append(_images(evidence.images))
    return Section("provenance", "Provenance", tuple(blocks))


def _distinct(items: Sequence[Any]) -> list[Any]:
    """Return the items without repetition, in their order; they need not be hashable."""
    out: list[Any] = []
    for item in items:
        if item not in out:
            out.append(item)
    return out


def _model_facts(model: Model) -> Iterator[Fact]:
    yield Fact("name", "Name", model.name)
    yield Fact("sha256", "SHA-256", model.sha256, literal=True)
    yield Fact("architecture", "Architecture", model.architecture)
    yield Fact("encoder", "Encoder", model.encoder)
    yield Fact("head", "Head", model.head)
    yield Fact("classes", "Classes", ", ".join(model.classes))
    for fact in _flat(model.scores):
        yield Fact(f"scores.{fact.key}", f"Score when trained: {fact.label}", fact.value)


def _conditions(image: InspectedImage) -> tuple[Fact, ...]:
    scale = Fact(
        "scale", "model grid / image grid", " \u00d7 ".join(f"{s:.6g}" for s in image.scale)
    )
    return (*_flat(image.lattice), scale)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[Fact]:
    """Yield the leaves of nested mappings under dotted names, in sorted order."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield Fact(f"{prefix}{key}", f"{prefix}{key}", _leaf(value), literal=True)


def _leaf(value: Any) -> Value:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _images(images: Sequence[InspectedImage]) -> Table:
    columns = (
        Column("image", "Image"),
        Column("channels", "Channels"),
        Column("select", "Read of the file"),
        Column("seen_as", "Shown to the model"),
        Column("dtype", "Type"),
        Column("spacing_y_um", "Pixel height", MEASURE, "\u00b5m"),
        Column("spacing_x_um", "Pixel width", MEASURE, "\u00b5m"),
        Column("inspected_px", "Inspected", COUNT, "px"),
        Column("sha256", "SHA-256"),
    )
    rows = tuple(
        (
            image.name,
            ", ".join(image.channels),
            selected(image.select) or None,
            image.seen_as,
            image.dtype,
            *(image.spacing_um or (None, None)),
            image.inspected_px,
            image.sha256,
        )
        for image in images
    )
    return Table("inputs", "The images as they were read.", columns, rows, shown=60)
