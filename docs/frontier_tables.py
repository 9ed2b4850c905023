"""What a budget of calls buys, as the page on Prompt-OIRL shows it: from files in docs/results/prompt_oirl.

    python -m docs.frontier_tables reports/prompt_oirl_study NAME

records the experiment `budget` that `prompt_oirl_study` has left there as NAME, and writes the pages.
"""

import sys
from pathlib import Path
from typing import Any

from docs.results_tables import Result, origin_line
from tasks.core.errors import InputError
from tasks.core.files import read_json, read_table, write_json

FOLDER = Path(__file__).parent / "results/prompt_oirl"
NONE = "None is recorded yet."
HEADS = ["budget", "cost", "right, %", "gain on the best prompt", "over the fixed order", "paid", "paid, estimated"]


def frontier_tables(folder: Path = FOLDER) -> str:
    return "\n\n".join(_section(file.stem, read_json(file)) for file in sorted(folder.glob("*.json"))) or NONE


def _section(name: str, result: Result) -> str:
    """Calls and tokens, one line for every policy; the best prompt and the vote of every prompt below."""
    rows = result["rows"]
    lines = [f"### {name}: {rows[0]['queries']} questions", "", origin_line(result), ""]
    lines += [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    for row in rows:
        if row["way"] == "policy":
            estimate = f"{row['estimate']:.3f} ± {row['estimate_error']:.3f}"
            more = [_points(row, "against_fixed"), f"{row['value']:.3f}", estimate]
            first = f"{row['budget']:g}{'' if row['unit'] == 'calls' else ' calls, in tokens'}"
        elif row["way"] == "fixed order":
            continue
        else:
            more, first = ["", "", ""], row["way"]
        cost = f"{row['cost']:.2f}" if row["unit"] == "calls" else f"{row['cost']:.0f} tokens"
        cells = [first, cost, f"{100 * row['success']:.1f}", _points(row, "gain"), *more]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _points(row: dict[str, Any], key: str) -> str:
    return f"{100 * row[key]:+.1f} [{100 * row[f'{key}_low']:+.1f}, {100 * row[f'{key}_high']:+.1f}]"


def main(report: Path, name: str) -> None:
    from docs.build import write  # both import this module
    from docs.record import origin

    if not (report / "frontier.parquet").exists():
        raise InputError(f"{report} has no frontier.parquet; run prompt_oirl_study with `budget` among its experiments")
    write_json(FOLDER / f"{name}.json", origin(".") | {"rows": read_table(report / "frontier.parquet")})
    write()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("say what and under which name: python -m docs.frontier_tables reports/prompt_oirl_study NAME")
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except InputError as error:
        sys.exit(str(error))
