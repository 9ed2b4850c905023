"""The tables of settings: params.yaml with the types of its Config classes, and the environment variables the code reads."""

import ast
import re
from functools import cache
from typing import NamedTuple

from tests.rules.code import REPO, modules, namespaces, tree

LINE = re.compile(r"( *)([\w-]+):(?: +(?!#)(.*?))?(?: +# (.*))?$")
VARIABLE = re.compile(r"REALIGN_[A-Z_]+")


class Param(NamedTuple):
    key: str  # policy.ppo.kl_coef
    value: str  # as it is written; empty for a mapping
    comment: str


def params_tables() -> str:
    """A section for each namespace of params.yaml, in its order. Those of algorithms are on the algorithms' own pages."""
    top = [param for param in params() if "." not in param.key and param.key != "policy"]
    sections = [f"### `{param.key}`\n\n{_sentence(param.comment)}{params_table(param.key)}" for param in top]
    return "\n\n".join(sections)


def params_table(namespace: str) -> str:
    types = fields(namespace)
    rows = []
    for key, value, comment in params():
        if not key.startswith(f"{namespace}.") or not value:
            continue
        name = key.removeprefix(f"{namespace}.")
        kind, said = types.get(name, ("", ""))
        cells = [f"`{name}`", f"`{value}`", f"`{kind}`" if kind else "", comment or said]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(["| key | default | type | meaning |", "|---|---|---|---|", *rows]) if rows else "It has no key."


def environment_table() -> str:
    """Each variable with the files that read it or pass it on."""
    readers: dict[str, list[str]] = {}
    for file in [*modules().values(), REPO / "Makefile", REPO / "prefect.yaml"]:
        for name in VARIABLE.findall(file.read_text(encoding="utf-8")):
            readers.setdefault(name, []).append(file.relative_to(REPO).as_posix())
    rows = [f"| `{name}` | {', '.join(f'`{file}`' for file in dict.fromkeys(readers[name]))} |" for name in sorted(readers)]
    return "\n".join(["| variable | named in |", "|---|---|", *rows])


@cache
def params() -> tuple[Param, ...]:
    """Every key of params.yaml with its value and the comment beside it."""
    found, above = [], {-1: ""}
    for line in (REPO / "params.yaml").read_text(encoding="utf-8").splitlines():
        if match := LINE.match(line):
            indent, name, value, comment = len(match[1]), match[2], match[3] or "", match[4] or ""
            outer = max(depth for depth in above if depth < indent)
            above = {depth: key for depth, key in above.items() if depth < indent}
            above[indent] = f"{above[outer]}.{name}".lstrip(".")
            found.append(Param(above[indent], value, comment))
    return tuple(found)


def fields(namespace: str) -> dict[str, tuple[str, str]]:
    """Type and comment of every key of the namespace, those of inner Configs by their dotted keys."""
    classes = {name: place for name, place in namespaces().items() if place == namespace}
    return dict(_fields(next(iter(classes)))) if classes else {}


def _fields(config: str, prefix: str = "") -> list[tuple[str, tuple[str, str]]]:
    found: list[tuple[str, tuple[str, str]]] = []
    for module in modules():
        for node in tree(module).body:
            if isinstance(node, ast.ClassDef) and node.name == config:
                lines = modules()[module].read_text(encoding="utf-8").splitlines()
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        name, kind = f"{prefix}{field.target.id}", ast.unparse(field.annotation)
                        comment = lines[field.lineno - 1].partition("  # ")[2]
                        found += [(name, (kind, comment)), *_fields(kind, f"{name}.")]
    return found


def _sentence(comment: str) -> str:
    return f"{comment[0].upper()}{comment[1:]}.\n\n" if comment else ""
