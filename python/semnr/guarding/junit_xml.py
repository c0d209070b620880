"""A verdict as JUnit XML, one test case a rule, for the test pages of CI servers."""

from __future__ import annotations

import datetime
import platform
import re
import xml.etree.ElementTree as ET

from ..runs.verdict import FIRED, NO_EVIDENCE, Signal, Verdict

_CLASS = "semnr.guard"


def junit(verdict: Verdict, *, seconds: float = 0.0, created: datetime.datetime | None = None) -> str:
    """The verdict as a JUnit XML file (the schema of Ant and Jenkins), one test case a rule.

    A rule that fired and gates is a failure. A required rule without evidence is an error, because nothing was tested.
    One that is optional or waived is skipped. One that is only shown passes, with its finding in system-out.

    Parameters
    ----------
    verdict : Verdict
        What `semnr.guard` returned.
    seconds : float
        How long it took.
    created : datetime, optional
        Time stamp of the file. Default: now.

    Returns
    -------
    str
        The text of the file.

    Examples
    --------
    >>> verdict = semnr.guard(None, semnr.profile(denoised, clean, metrics=("psnr", "ssim")))
    >>> semnr.guarding.junit(verdict).splitlines()[0]
    '<?xml version="1.0" encoding="UTF-8"?>'
    """
    cases = [_case(signal, verdict) for signal in verdict.signals]
    counts = {tag: sum(case.find(tag) is not None for case in cases) for tag in ("failure", "error", "skipped")}
    against = f" against {verdict.before}" if verdict.before else ""
    suite = ET.Element(
        "testsuite",
        {
            "name": _clean(f"semnr guard: {verdict.after or 'candidate'}{against}"),
            "tests": str(len(cases)),
            "failures": str(counts["failure"]),
            "errors": str(counts["error"]),
            "skipped": str(counts["skipped"]),
            "time": f"{seconds:.3f}",
            "timestamp": (created or datetime.datetime.now(datetime.UTC)).strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": platform.node() or "localhost",
            "id": "0",
            "package": _CLASS,
        },
    )
    properties = ET.SubElement(suite, "properties")
    facts = {"exit_code": verdict.exit_code, "tiles": verdict.tiles, "waived": ", ".join(verdict.waived)}
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": _clean(str(value))})
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = _clean(str(verdict))
    ET.SubElement(suite, "system-err")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(signal: Signal, verdict: Verdict) -> ET.Element:
    case = ET.Element("testcase", {"classname": _CLASS, "name": _clean(signal.name), "time": "0.000"})
    taken = next((line for line in verdict.path if line.startswith(f"{signal.name}: ")), signal.name)
    tiles = ", ".join(str(r["tile"]) for r in signal.regions[:20])
    text = _clean("\n".join(filter(None, (taken, signal.advice, f"tiles: {tiles}" if tiles else ""))))
    if signal.status == FIRED and signal.gate:
        ET.SubElement(case, "failure", {"message": _clean(signal.advice or taken), "type": signal.severity}).text = text
    elif signal.status in NO_EVIDENCE:
        reason = _clean(str(signal.evidence.get("reason", signal.status)))
        if signal.required and signal.name not in verdict.waived:
            ET.SubElement(case, "error", {"message": reason, "type": signal.status}).text = text
        else:
            ET.SubElement(case, "skipped", {"message": reason})
    return case


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
