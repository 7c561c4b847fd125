"""JUnit XML: the rules of an inspection as the test cases of a pipeline."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from domainseg.quality.assess import Assessment, RuleResult
from domainseg.quality.g85 import xml_text


def junit_xml(made: Assessment, *, name: str) -> bytes:
    """Return one test case per rule and per requirement of a verdict.

    A rule that is not met is a failure; what cannot be judged is an error, because a pipeline
    that skips it would let it pass.
    """
    suite = ET.Element("testsuite", {"name": xml_text(name)})
    failures = errors = 0
    for one in made.requirements:
        case = ET.SubElement(
            suite, "testcase", {"classname": "requirement", "name": xml_text(one.name)}
        )
        if not one.met:
            errors += 1
            said = f"found {one.found}, wanted {one.wanted}"
            ET.SubElement(case, "error", {"type": "INDETERMINATE", "message": xml_text(said)})
    for result in made.results:
        about = {"classname": "rule", "name": xml_text(result.rule.id)}
        case = ET.SubElement(suite, "testcase", about)
        if result.outcome == "FAIL":
            failures += 1
            ET.SubElement(case, "failure", {"type": "FAIL", "message": xml_text(_said(result))})
        elif result.outcome == "INDETERMINATE":
            errors += 1
            about = {"type": "INDETERMINATE", "message": xml_text(result.why)}
            ET.SubElement(case, "error", about)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", str(errors))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    body: bytes = ET.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + body + b"\n"


def _said(result: RuleResult) -> str:
    side = "at most" if result.rule.max is not None else "at least"
    use = {"value": "", "ci_upper": " (upper end)", "ci_lower": " (lower end)"}[result.rule.use]
    return f"{result.rule.metric}{use} is {result.judged:.6g}, wanted {side} {result.rule.limit:g}"
