"""Files are whole or absent, digests are DVC's own, and a broken line is named."""

import json
import math
import shutil

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from tasks.core.errors import InputError
from tasks.core.files import digest, files_of, publish, read_json, read_jsonl, read_table, write_json, write_table


@pytest.fixture
def tree(tmp_path):
    """A folder where it matters whether paths are sorted as text (`a.b` before `a/z.txt`) or by their parts (after it)."""
    files = {"a/z.txt": b"1", "a.b": b"2", "a/B.txt": b"", "ä ö.bin": bytes(range(256)), "deep/er/x": b"3", ".hidden": b"4"}
    for name, content in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "tree"


def test_digests_are_those_of_dvc(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tree / "ä ö.bin", "file.bin")
    with Repo.init(".", no_scm=True) as repo:
        repo.add(["tree", "file.bin"])
    recorded = {name: YAML().load(tmp_path / f"{name}.dvc")["outs"][0]["md5"] for name in ("tree", "file.bin")}
    assert digest(tree) == recorded["tree"]
    assert digest(tmp_path / "file.bin") == recorded["file.bin"]


def test_the_digest_of_a_folder_sees_names_and_contents(tree):
    before = digest(tree)
    (tree / "a.b").rename(tree / "a.c")
    renamed = digest(tree)
    (tree / "a.c").write_text("other")
    assert len({before, renamed, digest(tree)}) == 3


def test_what_downloads_and_editors_leave_is_no_content(tree):
    before = digest(tree)
    for name in (".cache/huggingface/download/config.json.metadata", ".git/HEAD", ".DS_Store", "a/__pycache__/x.pyc", "a.b~"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("today")
    assert digest(tree) == before
    (tree / "a/new.txt").write_text("content")
    assert digest(tree) != before


def test_files_come_in_a_fixed_order(tree):
    names = [file.relative_to(tree).as_posix() for file in files_of(tree)]
    assert names == [".hidden", "a/B.txt", "a/z.txt", "a.b", "deep/er/x", "ä ö.bin"]
    assert list(files_of(tree / "a.b")) == [tree / "a.b"]


def test_the_same_value_is_the_same_bytes(tmp_path):
    write_json(tmp_path / "one.json", {"b": 1, "a": "ü"})
    write_json(tmp_path / "new/two.json", {"a": "ü", "b": 1})
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "new/two.json").read_bytes()
    assert read_json(tmp_path / "one.json") == {"a": "ü", "b": 1}


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert read_json(path) == [1]


def test_tables_come_back_as_they_were(tmp_path):
    rows = [{"text": "ü\n", "score": 0.1, "none": None, "ids": [1, 2]}, {"text": "", "score": math.pi, "none": None, "ids": []}]
    write_table(tmp_path / "new/table.parquet", rows)
    write_table(tmp_path / "again.parquet", rows)
    assert read_table(tmp_path / "new/table.parquet") == rows
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "new/table.parquet").read_bytes()


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.parquet").write_text("no parquet")
    (tmp_path / "broken.json").write_text('{"a": 1,\n "b": }')
    for reader, name, says in (
        (read_table, "absent.parquet", "is missing"),
        (read_table, "broken.parquet", "not a readable parquet file"),
        (read_json, "absent.json", "is missing"),
        (read_json, "broken.json", r"broken.json:2: not valid JSON"),
    ):
        with pytest.raises(InputError, match=says) as error:
            reader(tmp_path / name)
        assert name in str(error.value)


def jsonl(tmp_path, text):
    (tmp_path / "rows.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / "rows.jsonl"


def test_jsonl(tmp_path):
    assert read_jsonl(jsonl(tmp_path, '{"a": 1}\n\n  \n{"a": "ü"}')) == [{"a": 1}, {"a": "ü"}]


@pytest.mark.parametrize(("text", "says"), [
    ('{"a": 1}\n\n{"a": 2\n', "rows.jsonl:3: not valid JSON"),
    ('{"a": 1}\n[1, 2]\n', "rows.jsonl:2: expected an object with named columns, found list"),
    (b'{"a": 1}\n{"a": "\xff"}\n', r"rows.jsonl(:2)?: not"),
])  # fmt: skip
def test_a_broken_line_is_named(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        read_jsonl(jsonl(tmp_path, text))


def test_a_missing_jsonl_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.jsonl is missing"):
        read_jsonl(tmp_path / "absent.jsonl")


def test_publish_replaces_files_and_folders(tmp_path):
    for number in (1, 2):
        write_json(tmp_path / "staged/file.json", number)
        write_json(tmp_path / f"staged/folder/{number}.json", number)
        publish({tmp_path / "final/file.json": tmp_path / "staged/file.json"})
        publish({tmp_path / "final/folder": tmp_path / "staged/folder"})
    assert json.loads((tmp_path / "final/file.json").read_text()) == 2
    assert [file.name for file in files_of(tmp_path / "final/folder")] == ["2.json"]
    assert not list((tmp_path / "staged").iterdir())
