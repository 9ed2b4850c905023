"""Sources are pinned: what is missing, changed or misspelt is refused in a sentence that says what to write."""

import hashlib
from pathlib import Path

import pytest

from tasks.core.errors import InputError
from tasks.core.files import write_json, write_table
from tasks.data.sources import InstructionsConfig, SourcesConfig, read_sets
from tests.processes import REPO

ROW = {"prompt": "2+2?", "completion": "4"}


def sources(folder: Path, *lines: str) -> Path:
    """A sources file with one set `mine` of these lines."""
    path = folder / "sources.yaml"
    body = "\n".join(f"      {line}" for line in ("tables: [prompts]", *lines))
    path.write_text(f"sources:\n  instructions: data/instructions/none.yaml\n  sets:\n    mine:\n{body}\n")
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_sets(SourcesConfig.load(path), path)
    assert "\n" not in str(error.value)
    return str(error.value)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "2+2?", "completion": "4"}\n\n')
    return file


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
def test_a_pinned_file_is_read(suffix: str, jsonl: Path, tmp_path: Path) -> None:
    file = tmp_path / f"rows.{suffix}"
    if suffix == "json":
        write_json(file, [ROW])
    if suffix == "csv":
        file.write_text("prompt,completion\n2+2?,4\n")
    if suffix == "parquet":
        write_table(file, [ROW])
    path = sources(tmp_path, f"file: {file}", f"sha256: {sha256(file)}")
    [loaded] = read_sets(SourcesConfig.load(path), path)
    assert [(example.id, example.query, example.completion) for example in loaded.examples] == [("mine-0", "2+2?", "4")]


def test_an_unpinned_or_changed_file_is_refused_with_the_value_to_write(jsonl: Path, tmp_path: Path) -> None:
    actual = f"`sha256: {sha256(jsonl)}`"
    assert refused(sources(tmp_path, f"file: {jsonl}")).endswith(f"rows.jsonl is not pinned; add {actual}")
    assert refused(sources(tmp_path, f"file: {jsonl}", "sha256: abc")).endswith(f"if the change is wanted, write {actual}")


def test_a_variable_in_the_path(jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sources(tmp_path, "file: ${SOME_FOLDER}/rows.jsonl", f"sha256: {sha256(jsonl)}")
    assert refused(path).endswith("sources.sets.mine: $SOME_FOLDER is not set; set it with `export SOME_FOLDER=<folder>`")
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    assert len(read_sets(SourcesConfig.load(path), path)[0].examples) == 1


def test_missing_broken_and_unknown_files(jsonl: Path, tmp_path: Path) -> None:
    assert refused(sources(tmp_path, "file: nowhere.jsonl")).endswith("sources.sets.mine: nowhere.jsonl is missing")
    jsonl.write_text('{"prompt": "a"\n')
    assert "rows.jsonl:1: not valid JSON" in refused(sources(tmp_path, f"file: {jsonl}", f"sha256: {sha256(jsonl)}"))
    other = tmp_path / "rows.txt"
    other.write_text("a,b\n")
    assert "give .jsonl, .json, .csv or .parquet" in refused(sources(tmp_path, f"file: {other}", f"sha256: {sha256(other)}"))
    listless = tmp_path / "rows.json"
    listless.write_text('{"a": 1}')
    assert "expected a list of objects" in refused(sources(tmp_path, f"file: {listless}", f"sha256: {sha256(listless)}"))
    fake = tmp_path / "rows.parquet"
    fake.write_text("no")
    assert "not a readable parquet file" in refused(sources(tmp_path, f"file: {fake}", f"sha256: {sha256(fake)}"))


def test_a_hub_data_set_needs_its_revision_and_a_network_or_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="owner/name needs a `revision`"):
        SourcesConfig.load(sources(tmp_path, "hub: owner/name"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sentence = refused(sources(tmp_path, "hub: owner/name", "revision: abcdef"))
    assert "sources.sets.mine: owner/name at abcdef cannot be loaded" in sentence
    assert sentence.endswith("without network, save it as a file and name the `file`")


def test_misspelt_and_contradictory_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown key `sources\.sets\.mine\.fiel`"):
        SourcesConfig.load(sources(tmp_path, "fiel: x"))
    for lines in (["hub: a/b", "file: x"], []):
        with pytest.raises(InputError, match="name either a `file` or a `hub` data set"):
            SourcesConfig.load(sources(tmp_path, *lines))
    path = tmp_path / "empty.yaml"
    path.write_text("sources:\n  instructions: x\n")
    with pytest.raises(InputError, match="name either what to `generate` or the `sets` to read"):
        SourcesConfig.load(path)


def test_instructions_must_hold_their_default(tmp_path: Path) -> None:
    path = tmp_path / "instructions.yaml"
    path.write_text("instructions:\n  default: a\n  texts: {b: Be brief.}\n")
    with pytest.raises(InputError, match="default `a` is not among the texts: b"):
        InstructionsConfig.load(path)


def test_every_shipped_file_loads() -> None:
    shipped = sorted((REPO / "data/sources").glob("*.yaml"))
    assert len(shipped) >= 6
    for path in shipped:
        instructions = REPO / SourcesConfig.load(path).instructions
        assert InstructionsConfig.load(instructions).texts
