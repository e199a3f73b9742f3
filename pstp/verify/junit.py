"""The verdict as JUnit XML, which CI systems show: one test case per point of the promise.

There is no standard; this is the form that the common readers agree on (testsuites > testsuite > testcase > failure).
"""

from xml.etree import ElementTree as ET

from pstp.verify.findings import WORDS, Violation
from pstp.verify.report import Report


def to_junit(verdict: Report) -> bytes:
    """One `testcase` per guarantee, its `failure` tells their number and those that are kept; and one that is an
    error if not everything could be read.
    """
    total, failed = str(len(WORDS) + 1), str(sum(count > 0 for count in verdict.counts.values()))
    unread = str(int(bool(verdict.unread)))
    suites = ET.Element("testsuites", name="pstp verify", tests=total, failures=failed)
    suite = ET.SubElement(
        suites, "testsuite", name="pstp verify", tests=total, failures=failed, errors=unread, skipped="0",
        time=f"{verdict.figures.span_s:.3f}",
    )  # fmt: skip
    for guarantee, words in WORDS.items():
        case = ET.SubElement(suite, "testcase", classname="pstp.verify", name=f"{guarantee.value} {words}", time="0")
        if count := verdict.counts[guarantee.value]:
            shown = [v for v in verdict.violations if v.guarantee is guarantee]
            text = "\n".join(line for violation in shown for line in _lines(verdict, violation))
            failure = ET.SubElement(case, "failure", type=guarantee.value, message=f"{count} violations of: {words}")
            failure.text = _xml_text(text)
    case = ET.SubElement(suite, "testcase", classname="pstp.verify", name="everything could be read", time="0")
    if verdict.unread:
        ET.SubElement(case, "error", type="unread", message=_xml_text("; ".join(verdict.unread)))
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _lines(verdict: Report, violation: Violation) -> list[str]:
    return [f"{violation.kind}: {violation.sentence()}", *(f"  {line}" for line in verdict.evidence_of(violation))]


def _xml_text(text: str) -> str:
    """XML 1.0 has no way to write most control characters (section 2.2), and group ids may hold any."""
    return "".join(c if c in "\t\n" or (c >= " " and c not in "\x7f\ufffe\uffff" and not "\ud800" <= c <= "\udfff")
                   else f"\\u{ord(c):04x}" for c in text)  # fmt: skip
