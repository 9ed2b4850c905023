"""The documentation is what code, params and recorded results say; its links lead somewhere."""

import re

import pytest
from ruamel.yaml import YAML

from docs.algorithms_pages import markdown
from docs.build import BLOCK, DOCS, pages, stale
from docs.params_tables import VARIABLE, environment_table, params, params_table
from tasks.core.config import flatten, read_params
from tests.rules.code import REPO

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGES.md", *sorted(DOCS.rglob("*.md"))]


def test_every_page_is_up_to_date() -> None:
    assert [page.relative_to(REPO).as_posix() for page in stale()] == [], "run `python -m docs.build`"


def test_a_page_that_was_edited_by_hand_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "algorithms/dpo.md"
    edited = pages() | {page: pages()[page].replace("implicit reward", "reward")}
    monkeypatch.setattr("docs.build.pages", lambda: edited)
    assert stale() == [page]


def test_every_algorithm_has_a_page_that_the_readme_links() -> None:
    names = {file.stem for file in (REPO / "tasks/algorithms").glob("*.py")}
    readme = (REPO / "README.md").read_text()
    assert {name for name in names if f"| [`{name}`](docs/algorithms/{name}.md) |" in readme} == names
    assert len(names) > 20


def test_docstrings_become_markdown() -> None:
    text = "It minimizes\n    x < y\n\nHow y* differs\n  - one\n    and more\n\nMetrics\n  a/b, c   two `x*` things\n    of it"
    assert "\n".join(markdown(text)) == (
        "It minimizes\n\n```text\nx < y\n```\n\nHow y\\* differs\n\n- one\n  and more\n\nMetrics\n\n"
        "- `a/b`, `c`: two `x*` things\n  of it"
    )


def test_tables_of_params_have_every_key_with_its_value() -> None:
    committed = read_params(REPO / "params.yaml")
    written = {param.key: YAML(typ="safe").load(param.value) for param in params() if param.value}
    flat = flatten(committed)
    assert {key: value for key, value in written.items() if not isinstance(value, dict)}.items() <= flat.items()
    assert all(any(key == one or key.startswith(f"{one}.") for one in written) for key, value in flat.items() if value != {})
    kl_coef = committed["policy"]["grpo"]["kl_coef"]
    assert f"| `kl_coef` | `{kl_coef}` | `NonNegativeFloat` |" in params_table("policy.grpo")
    assert "| `judge.timeout` | `60.0` | `PositiveFloat` | seconds, of an endpoint |" in params_table("collect_preferences")


def test_every_environment_variable_is_explained() -> None:
    explained = set(VARIABLE.findall(BLOCK.sub("", (DOCS / "settings.md").read_text())))
    assert explained == set(VARIABLE.findall(environment_table()))


def test_the_readme_is_one_page_and_names_every_stage() -> None:
    readme = (REPO / "README.md").read_text()
    stages = YAML(typ="safe").load(REPO / "dvc.yaml")["stages"].keys() - {"policy"}
    assert len(readme.splitlines()) <= 170
    assert [stage for stage in stages if f"`{stage}`" not in readme] == []
    assert "`policy@<algorithm>-<seed>`" in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_links_lead_somewhere(page) -> None:
    """Within the repository; `#anchors` are those of headings."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL))
    broken = []
    for target in (one for one in targets if "://" not in one):
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        heads = (
            re.findall(r"^#+ (.*)", found.read_text(), flags=re.MULTILINE) if found.suffix == ".md" and found.exists() else []
        )
        anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
        if not found.exists() or (anchor and anchor not in anchors):
            broken.append(target)
    assert broken == []
    assert page.read_text().lstrip().startswith(("# ", "<!--"))
