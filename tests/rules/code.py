"""The project's own code read as text: who imports whom, and what a stage names. Nothing is imported to find out."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPO = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One import, wherever in the file it stands."""

    by: str  # tasks.models.text
    of: str  # tasks.core.config.Config, or torch
    line: int


@cache
def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    files = [file for package in ("tasks", "flows") for file in sorted((REPO / package).rglob("*.py"))]
    return {".".join(file.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    found = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found += [Import(module, alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute here"
            found += [Import(module, f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


@cache
def needs(module: str) -> frozenset[str]:
    """Modules of the project that this one imports, packages above them included."""
    found: set[str] = set()
    for imported in imports(module):
        parts = imported.of.split(".")
        found |= {name for end in range(1, len(parts) + 1) if (name := ".".join(parts[:end])) in modules()}
    return frozenset(found)


def closure(module: str) -> set[str]:
    """The module and all that is imported with it."""
    reached, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting += needs(current)
    return reached


def work_of(module: str, namespace: str) -> list[ast.AST]:
    """The functions and classes of a stage's module that its `run(Config, work)` reaches.

    A module may serve two stages; the one meant is that whose Config has the namespace.
    """
    definitions = {node.name: node for node in tree(module).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    waiting = [
        argument.id
        for call in calls(tree(module), "run")
        if call.args and namespaces().get(getattr(call.args[0], "id", "")) == namespace
        for argument in call.args
    ]
    reached: dict[str, ast.AST] = {}
    while waiting:
        name = waiting.pop()
        if name in definitions and name not in reached:
            reached[name] = definitions[name]
            waiting += [node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)]
    return list(reached.values())


def calls(node: ast.AST, name: str) -> list[ast.Call]:
    """Calls of `name(...)` or `<anything>.name(...)`."""
    found = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    return [call for call in found if name in (getattr(call.func, "id", None), getattr(call.func, "attr", None))]


@cache
def namespaces() -> dict[str, str]:
    """Config class -> the namespace of params.yaml (or of another file) it stands for."""
    pairs = [pair for module in modules() for pair in _configs(module)]
    assert len({name for name, _ in pairs}) == len(pairs), "two Config classes share a name"
    return dict(pairs)


def namespaces_of(module: str) -> list[str]:
    """Those of the Config classes that the module defines."""
    return [namespace for _, namespace in _configs(module)]


def _configs(module: str) -> list[tuple[str, str]]:
    return [
        (node.name, ast.literal_eval(line.value))
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "namespace"
    ]
