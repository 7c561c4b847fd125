"""What an inspection is judged by: the rules file, as frozen records.

The severity and its defaults are this project's own proposal, not a standard's.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from domainseg.quality.expression import Condition, parse
from domainseg.quality.repeaters import FEWEST

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Measure = Literal["area", "length", "width", "feret"]
Grade = Literal["critical", "major", "minor"]
GRADES: tuple[Grade, ...] = ("critical", "major", "minor")
"""Of defects that count, the worst first."""
DEFAULT = "default"
"""Class whose rule holds for classes without one of their own."""
UNIT_NUMBERS = ("critical", "major", "minor", "defects", "demerits", "kill_probability")
"""What ``unit.fail_if`` may speak of: counts by grade, their sum, the demerits, and the chance
that at least one of the defects kills."""
_TOUCH = re.compile(r"any|centroid|area>=(1|1\.0|0?\.\d+)")


class Section(BaseModel):
    """A part of the rules: frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RepeaterRule(Section):
    """Which defects lie at the same place of many dies (`repeaters.repeaters`).

    Attributes:
        tolerance_um: by how much places of one and the same thing differ from die to die.
        min_dies: fewest dies that make a repeater.
        count: whether repeaters count as any other; false = they are for review, where a
            design is known to hold what looks like a defect.
    """

    tolerance_um: Positive
    min_dies: Annotated[int, Field(ge=2)] = FEWEST
    count: bool = True


class Detection(Section):
    """Which objects are defects at all.

    Attributes:
        conf_min: below it an object is for review: listed, and counted in no rule.
        min_size_um: least diameter of the circle of the same area; smaller ones are ignored.
        min_size_px: the same in pixels.
        edge_exclusion_um: width of the ring at a wafer's edge that is not inspected.
        repeaters: which repeat from die to die; null = not looked for.
    """

    conf_min: Share = 0.0
    min_size_um: NotNegative | None = None
    min_size_px: NotNegative | None = None
    edge_exclusion_um: NotNegative = 0.0
    repeaters: RepeaterRule | None = None


class ClassRule(Section):
    """How bad a defect of a class is.

    Attributes:
        weight: factor of the severity.
        measure: size that counts: ``area`` (its square root), ``length`` along the centre
            line, ``width`` across it, ``feret`` (largest caliper diameter).
        ref_um: size from which on its factor is 1; null = size does not count.
        ref_px: the same in pixels.
        gamma: power of the size over the reference.
        kill_prob: chance that one such defect kills its die; null = not known.
        positive: whether a cell of this class is positive; null = neither.
    """

    weight: Share = 1.0
    measure: Measure = "area"
    ref_um: Positive | None = None
    ref_px: Positive | None = None
    gamma: Positive = 1.0
    kill_prob: Share | None = None
    positive: bool | None = None


class ContrastRule(Section):
    """How contrast against the surrounding ring counts: ``(|contrast| / ref) ** gamma``."""

    ref: Positive
    gamma: Positive = 1.0


class Zone(Section):
    """A part of a die, a unit or an image; the first that a defect lies in holds.

    Attributes:
        name: of the zone.
        file: GeoJSON of its polygons, beside the rules file; none for all that is elsewhere.
        frame: of its coordinates: ``die`` (um from its lower left corner, y up), ``unit`` (um
            from the wafer's centre, y up), ``image`` (px, y down).
        factor: of the severity.
        critical: every defect in it that counts is critical.
        ignore: defects in it do not count, and its area is not inspected.
        touch: when a defect lies in it: ``centroid``, ``any`` of its box, or ``area>=f``, that
            share of its box.
    """

    name: Annotated[str, Field(min_length=1)]
    file: str | None = None
    frame: Literal["die", "unit", "image"] = "die"
    factor: Share = 1.0
    critical: bool = False
    ignore: bool = False
    touch: str = "centroid"

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if not _TOUCH.fullmatch(self.touch):
            raise ValueError(
                f"touch is '{self.touch}', wanted centroid, any, or area>= and a share such as 0.5"
            )
        if self.file is None and self.ignore:
            raise ValueError("ignore is true of a zone without a file, which is everywhere")
        return self

    @property
    def share(self) -> float | None:
        """Share of a defect's box from which on it lies in the zone; None for its centroid."""
        if self.touch == "centroid":
            return None
        return 0.0 if self.touch == "any" else float(self.touch.removeprefix("area>="))


class GradeRule(Section):
    """From which severity on a defect has a grade, and the demerits it then has."""

    severity: Annotated[float, Field(ge=0, le=100)]
    weight: NotNegative


class Grades(Section):
    """The grades; what is less severe than minor is ignored."""

    critical: GradeRule = GradeRule(severity=70, weight=100)
    major: GradeRule = GradeRule(severity=40, weight=50)
    minor: GradeRule = GradeRule(severity=10, weight=10)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for worse, better in (("critical", "major"), ("major", "minor")):
            if getattr(self, worse).severity < getattr(self, better).severity:
                raise ValueError(f"{worse} begins at a lower severity than {better}")
        return self

    def of(self, grade: Grade) -> GradeRule:
        """Return the rule of a grade."""
        rule: GradeRule = getattr(self, grade)
        return rule


class Cluster(Section):
    """When defects are one cluster (DBSCAN): ``min_samples`` within ``eps_um`` of one of them."""

    eps_um: Positive
    min_samples: Annotated[int, Field(ge=2)] = 5


class UnitRule(Section):
    """When a die, or a unit without dies, fails: a condition on UNIT_NUMBERS.

    A wafer is not judged as one: its dies are.
    """

    fail_if: str = "critical > 0"

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        try:
            _ = self.condition
        except ValueError as error:
            raise ValueError(f"fail_if: {str(error).removeprefix('expression: ')}") from error
        return self

    @property
    def condition(self) -> Condition:
        """The condition of ``fail_if``."""
        return parse(self.fail_if, UNIT_NUMBERS)


Metric = Literal[
    "density_per_cm2",
    "density_per_mm2",
    "density_killers_per_cm2",
    "count",
    "count_critical",
    "count_major",
    "count_minor",
    "count_repeaters",
    "demerits",
    "die_yield",
    "unit_yield",
    "positive_fraction",
]


class Accept(Section):
    """One rule of acceptance: a number and its limit.

    Attributes:
        id: name of the rule.
        metric: number that is judged; ``count_repeaters`` counts them where they are for review
            too.
        class_name: of the defects that it counts (``class`` in the file); null = of all.
        max: largest that passes.
        min: smallest that passes.
        use: what is held against the limit: the ``value``, or an end of its interval.
        confidence: of the interval.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )

    id: Annotated[str, Field(min_length=1)]
    metric: Metric
    class_name: str | None = Field(default=None, alias="class")
    max: float | None = None
    min: float | None = None
    use: Literal["value", "ci_upper", "ci_lower"] = "value"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.max is None) == (self.min is None):
            found = "neither max nor min" if self.max is None else "both max and min"
            raise ValueError(f"found {found}, wanted one limit")
        if self.class_name is not None and self.metric in ("die_yield", "unit_yield"):
            raise ValueError(f"class is set, which {self.metric} is not counted by")
        return self

    @property
    def limit(self) -> float:
        """The one of ``max`` and ``min`` that is set."""
        limit = self.min if self.max is None else self.max
        assert limit is not None
        return limit


class ImageQuality(Section):
    """What an image must be for a verdict.

    Attributes:
        focus_min: least sharpness, as the report gives it.
        saturated_max: greatest share of saturated pixels.
        coverage_min: least share of the image that was looked at.
    """

    focus_min: NotNegative | None = None
    saturated_max: Share | None = None
    coverage_min: Share | None = None


class Require(Section):
    """What there must be for a verdict; without it there is none.

    Attributes:
        min_area_cm2: least inspected area.
        min_units: fewest units.
        max_failed: most images that could not be read.
        max_unlike_share: greatest share of the images that are unlike those that their model was
            trained on, or of which that is not known; null = any.
        qc: of each image.
    """

    min_area_cm2: NotNegative = 0.0
    min_units: Annotated[int, Field(ge=1)] = 1
    max_failed: Annotated[int, Field(ge=0)] = 0
    max_unlike_share: Share | None = None
    qc: ImageQuality = ImageQuality()


class Rules(Section):
    """A whole rules file.

    Attributes:
        version: of the format (``schema`` in the file).
        units: of sizes and zones: ``um``, or ``px`` where no pixel size is known.
        title: of the report; null for one made from what is inspected.
        detection: which objects are defects at all.
        classes: rule of each class; ``default`` for those without one.
        contrast: how contrast counts; null = not.
        zones: the first that a defect lies in holds.
        grades: from which severity on.
        cluster: when defects are one cluster; null = never.
        unit: when a die or unit fails.
        opportunities: places of a unit where a defect could be, for defects per million of them;
            null = not counted.
        critical_layers: layers of a wafer that each can fail, for the yield model of Bose and
            Einstein; null = not known.
        accept: all of which must be met.
        require: what there must be for a verdict.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )

    version: Literal[1] = Field(alias="schema")
    units: Literal["um", "px"]
    title: str | None = None
    detection: Detection = Detection()
    classes: dict[str, ClassRule] = Field(default_factory=lambda: {DEFAULT: ClassRule()})
    contrast: ContrastRule | None = None
    zones: tuple[Zone, ...] = ()
    grades: Grades = Grades()
    cluster: Cluster | None = None
    unit: UnitRule = UnitRule()
    opportunities: Annotated[int, Field(ge=1)] | None = None
    critical_layers: Annotated[int, Field(ge=1, le=1000)] | None = None
    accept: Annotated[tuple[Accept, ...], Field(min_length=1)]
    require: Require = Require()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, count in Counter(rule.id for rule in self.accept).items():
            if count > 1:
                raise ValueError(f"accept holds {count} rules called '{name}', wanted one")
        for name, count in Counter(zone.name for zone in self.zones).items():
            if count > 1:
                raise ValueError(f"zones holds {count} called '{name}', wanted one")
        for zone in self.zones[:-1]:
            if zone.file is None:
                raise ValueError(
                    f"zones holds '{zone.name}' without a file before others, "
                    "which never hold, as it is everywhere"
                )
        self._one_unit()
        return self

    def _one_unit(self) -> None:
        """Raise where a size is given in the unit that these rules do not have."""
        other = "px" if self.units == "um" else "um"
        if getattr(self.detection, f"min_size_{other}") is not None:
            raise ValueError(f"detection.min_size_{other} is set where units is {self.units}")
        for name, rule in self.classes.items():
            if getattr(rule, f"ref_{other}") is not None:
                raise ValueError(f"classes.{name}.ref_{other} is set where units is {self.units}")
        if self.units == "px":
            if self.cluster is not None:
                raise ValueError("cluster is set where units is px, and its distance is in um")
            if self.detection.repeaters is not None:
                raise ValueError(
                    "detection.repeaters is set where units is px, and its tolerance is in um"
                )
            if zone := next((z for z in self.zones if z.file and z.frame != "image"), None):
                raise ValueError(f"zones holds '{zone.name}', whose frame is in um, not px")

    def of_class(self, name: str) -> ClassRule | None:
        """Return the rule of a class, that of ``default`` without its own, else None."""
        return self.classes.get(name, self.classes.get(DEFAULT))

    def reference(self, rule: ClassRule) -> float | None:
        """Return the reference size of a class's rule in the unit of these rules."""
        return rule.ref_um if self.units == "um" else rule.ref_px

    @property
    def min_size(self) -> float:
        """Least diameter in the unit of these rules."""
        size = self.detection.min_size_um if self.units == "um" else self.detection.min_size_px
        return size or 0.0
