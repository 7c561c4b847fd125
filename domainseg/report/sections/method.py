"""The definitions behind every number of the report, only those it uses."""

from __future__ import annotations

from domainseg.report.densities import MM2, MPX
from domainseg.report.document import Formula, Formulas, Section
from domainseg.report.evidence import Evidence


def method(evidence: Evidence) -> Section:
    """Return the formulas of the densities, sizes, shapes and scores that the report shows."""
    items = [*_densities(calibrated=evidence.calibrated)]
    if evidence.objects.height:
        items += _SHAPES
    if evidence.evaluation is not None:
        items += _SCORES
    return Section("method", "Method and formulas", (Formulas("formulas", tuple(items)),))


def _densities(*, calibrated: bool) -> tuple[Formula, ...]:
    unit = MM2 if calibrated else MPX
    return (
        Formula(
            "Density",
            "D = N / A",
            f"N objects on the inspected area A in {unit.name}; the area left out of an "
            "inspection is left out of A.",
        ),
        Formula(
            "95 % interval of a density",
            "\u03c7\u00b2(0.025; 2N) / 2A  to  \u03c7\u00b2(0.975; 2N + 2) / 2A",
            "Exact for a Poisson count (Garwood 1936); for N = 0 from 0 to 3.689 / A. It "
            "covers chance in the count of objects that lie independently, not mistakes of "
            "the segmentation.",
        ),
        Formula(
            "Index of dispersion",
            "\u03a3 (N\u1d62 \u2212 D A\u1d62)\u00b2 / (D A\u1d62) / (k \u2212 1)",
            "Over k images; 1 is expected of independent objects, and k \u2212 1 times the "
            "index is compared with \u03c7\u00b2 of k \u2212 1 degrees of freedom.",
        ),
    )


_SHAPES = (
    Formula(
        "Equivalent diameter",
        "d = 2 \u221a(A / \u03c0)",
        "Of the circle with the area A of the object.",
    ),
    Formula(
        "Median and middle half",
        "Q\u2085\u2080;  Q\u2082\u2085 to Q\u2087\u2085",
        "Quantiles with linear interpolation between neighbours (type 7 of Hyndman and Fan 1996).",
    ),
    Formula(
        "Eccentricity",
        "e = \u221a(1 \u2212 b\u00b2 / a\u00b2)",
        "Half-axes a \u2265 b of the ellipse with the same second moments; 0 is a circle.",
    ),
    Formula("Solidity", "A / A\u1d34", "Area over the area of the convex hull; 1 has no dents."),
    Formula(
        "Circularity",
        "4\u03c0A / P\u00b2",
        "P is the perimeter; 1 is a circle, and values above it, from few pixels, are set to 1.",
    ),
)

_SCORES = (
    Formula(
        "IoU",
        "|T \u2229 P| / |T \u222a P|",
        "Of a truth object T and a prediction P; each is matched at most once.",
    ),
    Formula(
        "AP at t",
        "TP / (TP + FP + FN)",
        "TP pairs with IoU \u2265 t, FP predictions and FN truth objects without a partner "
        "(2018 Data Science Bowl; Caicedo et al. 2019). Mean AP is the mean over t.",
    ),
    Formula("F1", "2 TP / (2 TP + FP + FN)", "At IoU \u2265 0.5."),
    Formula(
        "PQ",
        "\u03a3 IoU / (TP + FP / 2 + FN / 2)",
        "Sum over pairs with IoU > 0.5 (Kirillov et al. 2019).",
    ),
    Formula(
        "AJI",
        "\u03a3 |T \u2229 P| / (\u03a3 |T \u222a P| + \u03a3 |unused P|)",
        "Each T with the P of its highest IoU (Kumar et al. 2017).",
    ),
    Formula(
        "95 % interval of the share found",
        "(p + z\u00b2/2n \u00b1 z \u221a(p(1 \u2212 p)/n + z\u00b2/4n\u00b2)) / (1 + z\u00b2/n)",
        "p of n objects, z = 1.96 (Wilson 1927); objects of one image are often alike, so that "
        "the true interval is wider.",
    ),
    Formula("Dice", "2 |T \u2229 P| / (|T| + |P|)", "Of the foreground as a whole, in pixels."),
    Formula(
        "Merged, split",
        "|T \u2229 P| \u2265 |T| / 2 for two T;  |T \u2229 P| \u2265 |P| / 2 for two P",
        "Or more than two: predictions that join objects; objects cut into predictions.",
    ),
)
