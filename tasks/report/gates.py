"""What the validation gates found, as compact tables. Tolerant of verdicts with fewer details than ours."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tasks.core.files import Row
from tasks.report.tables import row, table
from tasks.report.wording import data


def gate(name: str, verdict: Mapping[str, Any]) -> str:
    """What one gate expected of each table, what failed and in which rows; the whole list folded."""
    findings: list[dict[str, Any]] = verdict.get("expectations", [])
    held = sum(finding["success"] for finding in findings)
    state = "contaminated, allowed by params.yaml" if verdict.get("contaminated") else "passed"
    head = f"<h3><code>{escape(name)}</code>: {state}, {held} of {len(findings)} expectations hold</h3>"
    by_table: dict[str, list[dict[str, Any]]] = {}
    for finding in findings:
        by_table.setdefault(finding["table"], []).append(finding)
    rows = [_table_row(of, group) for of, group in by_table.items() if not of.startswith("overlap_")]
    overlaps = [_overlap_row(finding) for finding in findings if finding["table"].startswith("overlap_")]
    parts = [head, '<div class="pair">']
    parts.append(table(["table", "rows", "expectations", "hold"], rows, "Expectations by table") if rows else "")
    if overlaps:
        head_cells = ["held-out prompts against", "measure", "checked", "failing"]
        parts.append(table(head_cells, overlaps, "Contamination: held-out prompts found in training data"))
    parts.append("</div>")
    failing = [_failing(finding) for finding in findings if not finding["success"]]
    parts.append(f"<ul>{''.join(failing)}</ul>" if failing else "")
    if findings:
        every = [row([_subject(finding), *_details(finding)]) for finding in findings]
        listed = table(["column", "expectation", "arguments", "checked", "failing"], every, css="fine")
        parts.append(f"<details><summary>Every expectation</summary>{listed}</details>")
    return "".join(parts)


def _table_row(name: str, findings: Sequence[Row]) -> str:
    failed = sum(not finding["success"] for finding in findings)
    rows = max((finding["checked"] for finding in findings if "column" in finding["arguments"]), default=None)
    hold = f'<span class="bad">{len(findings) - failed}</span>' if failed else str(len(findings))
    return row([f"<code>{escape(name)}</code>", data(rows, "count"), str(len(findings)), hold])


def _overlap_row(finding: Row) -> str:
    measure = {"same": "same text", "near": "nearly the same"}.get(finding["arguments"].get("column", ""), "overlap")
    failed = data(finding["failed"], "count")
    failed = f'<span class="bad">{failed}</span>' if finding["failed"] else failed
    return row(
        [
            f"<code>{escape(finding['table'].removeprefix('overlap_'))}</code>",
            measure,
            data(finding["checked"], "count"),
            failed,
        ]
    )


def _failing(finding: Row) -> str:
    named = "; ".join(str(each.get("found", "")) for each in finding.get("rows", [])[:3])
    reason = finding["arguments"].get("notes", finding["expectation"])
    return f"<li>{_subject(finding)}: {finding['failed']} of {finding['checked']}, {escape(str(reason))} ({escape(named)})</li>"


def _subject(finding: Row) -> str:
    column = finding["arguments"].get("column")
    return f"<code>{escape(finding['table'] + (f'.{column}' if column else ''))}</code>"


def _details(finding: Row) -> list[str]:
    arguments = {key: value for key, value in finding["arguments"].items() if key not in ("column", "notes")}
    said = json.dumps(arguments, ensure_ascii=False, sort_keys=True) if arguments else ""
    return [escape(finding["expectation"]), escape(said), data(finding["checked"], "count"), data(finding["failed"], "count")]
