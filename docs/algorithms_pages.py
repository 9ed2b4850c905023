"""The page of an algorithm: its docstring as Markdown, its params, its recorded curve."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from docs.params_tables import params_table
from docs.results_tables import curve
from tests.rules.code import namespaces_of, tree


def algorithm_page(name: str, results: Sequence[dict[str, Any]]) -> str:
    module = f"tasks.algorithms.{name}"
    title, _, rest = docstring(name).partition("\n\n")
    parts = [f"# {name}", prose(title), "\n".join(markdown(rest)).strip(), f"Source: `{module.replace('.', '/')}.py`."]
    for namespace in namespaces_of(module):
        parts += [f"## Params: `{namespace}`", params_table(namespace)]
    return "\n\n".join([*parts, *curve(name, results)]) + "\n"


def algorithm_table(names: Sequence[str], folder: str) -> str:
    """folder: of the algorithms' pages, as the page that shows the table sees it."""
    rows = [f"| [`{name}`]({folder}{name}.md) | {prose(docstring(name).partition(chr(10) * 2)[0])} |" for name in names]
    return "\n".join(["| algorithm | what it is |", "|---|---|", *rows])


def docstring(name: str) -> str:
    found = ast.get_docstring(tree(f"tasks.algorithms.{name}"))
    assert found, f"tasks/algorithms/{name}.py has no docstring"
    return found


def markdown(text: str) -> Iterator[str]:
    """Lines indented by four are equations or code; `  - one` is a list; `  name   text` explains a name."""
    kind = ""  # of the block that the line before belonged to: code, item, prose
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if kind == "code" and (indent < 4 or not line):
            yield "```"
            kind = ""
            if line:
                yield ""
        if not line:
            kind = ""
            yield ""
        elif indent == 0:
            if kind == "item":
                yield ""
            kind = "prose"
            yield prose(line)
        elif indent >= 4 and kind != "item":
            if kind != "code":
                yield "\n```text"
            kind = "code"
            yield line[4:]
        elif indent == 2:
            if kind == "prose":
                yield ""
            kind = "item"
            yield f"- {prose(_item(line.strip()))}"
        else:
            yield f"  {prose(line.strip())}"
    if kind == "code":
        yield "```"


def _item(line: str) -> str:
    """`loss/policy, loss/kl   the two terms` has its names set apart; `- text` is text."""
    names, gap, text = line.partition("  ")
    if line.startswith("- ") or not gap:
        return line.removeprefix("- ")
    return f"{', '.join(f'`{name}`' for name in names.split(', '))}: {text.strip()}"


def prose(text: str) -> str:
    """A line of plain text; what Markdown would take for emphasis or a tag stays as it is, outside of `code`."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split("\n")))
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts)
