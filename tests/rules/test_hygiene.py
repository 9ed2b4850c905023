"""No hollow test, no silent skip, nothing that runs foreign code and nothing that belongs to one machine."""

import ast
import re
import subprocess

import pytest

from tests.rules.code import REPO, imports, modules, tree

TESTS = sorted((REPO / "tests").rglob("*.py"))
SKIPS = {"skip", "skipif", "xfail", "importorskip", "skipTest"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# These two are written so that they do not find themselves.
MACHINES = re.compile(r"(?<![\w.}/-])/(?:work|home|root|Users|mnt|opt|scratch)/")
REGISTRIES = re.compile(r"index[-]url|find[-]links|trusted[-]host|\bpyp[i]\b|artifactor[y]|registr[y]\.\w+\.\w+", re.IGNORECASE)


def test_the_rules_saw_the_tests():
    found = every_test(TESTS)
    assert len(found) > 300
    assert {file.parent.name for file, _ in found} >= {
        "rl", "core", "models", "feedback", "algorithms", "prompt_oirl", "evaluation", "data", "flows", "learning", "rules",
    }  # fmt: skip


def every_test(files):
    functions = [(file, node) for file in files for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef)]
    return [(file, node) for file, node in functions if node.name.startswith("test_") and file.name.startswith("test_")]


def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def claims_something(function):
    """An assert statement, `pytest.raises` or `torch.testing.assert_…`, in the test itself."""
    names = [getattr(node, "attr", "") for node in ast.walk(function)]
    asserts = any(isinstance(node, ast.Assert) for node in ast.walk(function))
    return asserts or any(name == "raises" or name.startswith("assert_") for name in names)


def test_no_test_is_hollow():
    assert [f"{file.name}: {function.name}" for file, function in every_test(TESTS) if not claims_something(function)] == []


def test_every_test_file_holds_a_test():
    named = {file for file in TESTS if file.name.startswith("test_")}
    assert {file for file, _ in every_test(TESTS)} == named


def test_no_two_tests_of_a_file_share_a_name():
    """The second would replace the first in silence."""
    names = [(file, function.name) for file, function in every_test(TESTS)]
    assert len(names) == len(set(names))


def test_no_two_test_files_share_a_name():
    """pytest imports each by its bare name and stops at the second."""
    names = [file.name for file in TESTS if file.name.startswith("test_")]
    assert len(names) > 100
    assert sorted(set(names)) == sorted(names)


def test_the_only_skip_is_for_absent_shared_data():
    skips = [
        (file.relative_to(REPO).as_posix(), function.name)
        for file in TESTS
        for function in ast.walk(parsed(file))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if getattr(node, "attr", "") in SKIPS or getattr(node, "id", "") in SKIPS - {"skip"}
    ]
    assert skips == [("tests/conftest.py", "shared")]


def test_a_hollow_test_would_be_found():
    hollow, sound = ast.parse("def test_a(): compute()").body[0], ast.parse("def test_b(): assert compute()").body[0]
    assert not claims_something(hollow)
    assert claims_something(sound)


def test_nothing_runs_code_that_came_as_data():
    wrong = []
    for module in modules():
        wrong += [f"{module}: {found.of}" for found in imports(module) if found.of.split(".")[0] in PICKLES]
        for call in (node for node in ast.walk(tree(module)) if isinstance(node, ast.Call)):
            arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            called = ast.unparse(call.func)
            if (
                called in ("eval", "exec", "os.system", "os.popen", "compile")
                or arguments.get("trust_remote_code", "False") != "False"
                or arguments.get("shell", "False") != "False"
                or (called == "torch.load" and arguments.get("weights_only") != "True")
            ):
                wrong.append(f"{module}:{call.lineno}: {ast.unparse(call)}")
    assert wrong == []


def tracked():
    """Files in git, or about to be: (name, text)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.split("\0")
    texts = []
    for name in filter(None, names):
        content = (REPO / name).read_bytes() if (REPO / name).is_file() else b""
        if b"\0" not in content:
            texts.append((name, content.decode("utf-8")))
    return texts


@pytest.mark.parametrize("forbidden", [MACHINES, REGISTRIES], ids=["machine-paths", "registry-hosts"])
def test_nothing_belongs_to_one_machine(forbidden):
    files = tracked()
    found = [f"{name}: {line.strip()[:100]}" for name, text in files for line in text.splitlines() if forbidden.search(line)]
    assert len(files) > 80
    assert found == []
