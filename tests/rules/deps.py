"""The code deps of dvc.yaml: for each stage, exactly the files that its module imports, at first or second hand.

    make deps      # or python -m tests.rules.deps: writes the `tasks/...` lines of dvc.yaml
    python -m tests.rules.deps --check      # exit code 1 if they are not what the imports say

A matrix shares its deps, so its stages declare what any of them imports. Files of data are written by hand.
"""

import re
import sys
from collections.abc import Iterator

from tests.rules.code import REPO, closure, modules, namespaces_of

DVC_YAML = REPO / "dvc.yaml"
SILENT = {"tasks"}  # tasks/__init__.py sets environment variables that change no number
STAGE, COMMAND, DEP = re.compile(r"  (\w+):$"), re.compile(r"    cmd: python -m (\S+)"), "      - "


def code_deps(stage: str, command: str) -> list[str]:
    """Files below tasks/, as dvc.yaml names them. command: the module of the stage, which may hold ${item.algorithm} or
    ${<stage>.source}. A source is a folder of its own: its files count where it is chosen, or where others import them."""
    if "${" not in command:
        return sorted(_files(closure(command)))
    before, key, after = re.split(r"\$\{(.*)\}", command)
    template = f"{before.replace('.', '/')}${{{key}}}"
    if key == "item.algorithm":
        entries = [module for module in modules() if any(name.startswith(f"{stage}.") for name in namespaces_of(module))]
        shared = set().union(*(closure(entry) - {entry} for entry in entries))
        template += ".py"
    else:
        entries = [module for module in modules() if module.startswith(before) and module.endswith(after)]
        own = {entry: entry.removesuffix(after) for entry in entries}
        shared = {name for entry in entries for name in closure(entry) if not name.startswith(own[entry])}
    assert entries, f"no module fits {command}"
    return sorted([template, *_files(shared)])


def _files(names: set[str]) -> list[str]:
    return [modules()[name].relative_to(REPO).as_posix() for name in names - SILENT]


def generated(text: str) -> str:
    """dvc.yaml with the code deps of every stage written anew, behind those that are written by hand."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    stage = command = ""
    in_deps = False
    for line in lines:
        if match := STAGE.match(line):
            stage = match[1]
        if match := COMMAND.match(line):
            command = match[1]
        if in_deps and not line.startswith(DEP):
            yield from (f"{DEP}{file}" for file in code_deps(stage, command))
            in_deps = False
        in_deps = in_deps or line == "    deps:"
        if not (in_deps and line.startswith(f"{DEP}tasks/")):
            yield line


if __name__ == "__main__":
    current = DVC_YAML.read_text(encoding="utf-8")
    if "--check" not in sys.argv[1:]:
        DVC_YAML.write_text(generated(current), encoding="utf-8")
    elif generated(current) != current:
        sys.exit("dvc.yaml: its `tasks/...` lines are not what the code imports; `make deps` writes them")
