"""The findings of tasks/report/sweep/takeaways.py on the page of a sweep: each in a sentence, above its claims."""

from collections.abc import Sequence
from html import escape

from tasks.report.sweep.cells import between, small
from tasks.report.sweep.takeaways import Claim, Finding
from tasks.report.tables import row, table
from tasks.report.whiskers import axis, scale_of, whisker
from tasks.report.wording import data

WORDS = {1: "right", 0: "", -1: "wrong"}


def takeaway_table(findings: Sequence[Finding]) -> str:
    """Nothing where there are none."""
    if not findings:
        return ""
    scale = scale_of([claim for finding in findings for claim in finding.claims])
    body = []
    for finding in findings:
        said = f"<b>{escape(finding.title)}</b><small>{escape(finding.verdict)} In points of {escape(finding.what)}.</small>"
        body.append(row([said, "", "", ""], "reference"))
        body += [row(_cells(claim, scale)) for claim in finding.claims]
    seeds = len(findings[0].claims[0].by_seed)
    notes = f"""<p>A claim is a difference that is above zero where it is true, with its 95 % interval over {seeds} seeds; p is
two-sided, after Holm's correction for the claims of its takeaway. A takeaway holds if all its claims are surely
right, and does not hold here if one is surely wrong. Here means this task and models of this size.</p>"""
    heads = ["", "difference, points", axis(scale), "p"]
    return f"<h2>The five takeaways</h2>{notes}{table(heads, body, 'Every claim; one dot per seed', 'sweep takeaways')}"


def _cells(claim: Claim, scale: tuple[float, float]) -> list[str]:
    mean = f'<span class="{WORDS[claim.sure]}">{data(claim.mean, "points")}</span>'
    interval = small(between(claim.low, claim.high, "points"))
    return [escape(claim.says), mean + interval, whisker(claim, scale, "ink"), data(claim.p_holm, "p")]
