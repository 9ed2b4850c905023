"""What the documentation takes from elsewhere: a page for each algorithm, and the marked tables of the other pages.

    python -m docs.build            # or make docs, which builds the site too: writes what has changed
    python -m docs.build --check    # exit code 1 if a page is not what code, params.yaml and docs/results say

A page marks a table by `<!-- built: name -->` above and `<!-- end -->` below. Code is read as text: nothing is imported.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from docs.algorithms_pages import algorithm_page, algorithm_table
from docs.frontier_tables import frontier_tables
from docs.params_tables import environment_table, params_tables
from docs.results_tables import read_results, results_tables, rounding_table, speed_table
from tests.rules.code import REPO, modules

DOCS = REPO / "docs"
BLOCK = re.compile(r"(<!-- built: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOTE = "<!-- Written by `python -m docs.build`; edit the module's docstring instead. -->\n\n"


def pages() -> dict[Path, str]:
    """Every page that is generated or holds a generated table, as it should be."""
    results = read_results(DOCS / "results")
    names = [module.rpartition(".")[2] for module in modules() if module.startswith("tasks.algorithms.")]
    tables: dict[str, Callable[[], str]] = {
        "algorithms": lambda: algorithm_table(names, "docs/algorithms/"),
        "all_algorithms": lambda: algorithm_table(names, ""),
        "environment": environment_table,
        "frontier": frontier_tables,
        "params": params_tables,
        "results": lambda: results_tables(results),
        "rounding": lambda: rounding_table(DOCS / "results/bench/rounding.json"),
        "speed": lambda: speed_table(DOCS / "results/bench/speed.json"),
    }
    found = {DOCS / f"algorithms/{name}.md": NOTE + algorithm_page(name, results) for name in names}
    for page in [REPO / "README.md", *sorted(DOCS.rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        if page not in found and BLOCK.search(text):
            found[page] = BLOCK.sub(lambda match: f"{match[1]}\n{tables[match[2]]()}\n\n{match[3]}", text)
    return found


def stale() -> list[Path]:
    """Pages that are not as they should be, and pages of algorithms that are gone."""
    wanted = pages()
    gone = [page for page in (DOCS / "algorithms").glob("*.md") if page not in wanted]
    return gone + [page for page, text in wanted.items() if not page.exists() or page.read_text(encoding="utf-8") != text]


def write() -> None:
    wanted = pages()
    for page in stale():
        if page in wanted:
            page.write_text(wanted[page], encoding="utf-8")
        else:
            page.unlink()


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        write()
    elif old := stale():
        names = ", ".join(page.relative_to(REPO).as_posix() for page in old)
        sys.exit(f"{names}: not up to date; `python -m docs.build` writes them")
