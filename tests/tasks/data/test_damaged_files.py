"""Files as spreadsheets, editors and broken downloads leave them: read, or refused in one sentence."""

import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tasks.core.errors import InputError
from tasks.data.pinned import read_rows

ROWS = [{"prompt": f"What is {n} + 1?", "completion": f"It is {n + 1}, 不是 {n}."} for n in range(40)]
TEXT = json.dumps(ROWS, ensure_ascii=False)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(TEXT, encoding="utf-8-sig")
    assert read_rows(file) == ROWS


def test_a_field_may_be_long(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"prompt,completion\nWhat?,{'long ' * 60_000}\n")
    assert len(read_rows(file)[0]["completion"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.json", TEXT.encode("gbk"), r"rows\.json: not UTF-8 \(byte \d+\); convert the file"),
        ("rows.json", b'{"a": 1}\n{"a": 2}\n', r"rows\.json:2: not valid JSON .* one object a line is called \.jsonl"),
        (
            "rows.csv",
            b"prompt;completion\nWhat?;This.\n",
            r"rows\.csv: its columns are separated by semicolons; save it with commas",
        ),
        ("rows.csv", b"prompt\tcompletion\nWhat?\tThis.\n", r"rows\.csv: its columns are separated by tabs"),
        (
            "rows.csv",
            b"prompt,completion,prompt\nWhat?,This.,Why?\n",
            r"rows\.csv: two columns are called 'prompt'; rename one",
        ),
        ("rows.jsonl", TEXT.encode(), r"rows\.jsonl:1: expected an object .* one list of them and called \.json"),
        ("rows.jsonl", '{"a": 1}\n{"a": 2}\n'.encode("utf-16"), r"rows\.jsonl:1: not UTF-8 \(byte \d+\)"),
        ("rows.json", TEXT.encode("utf-16"), r"rows\.json: not UTF-8 \(byte 0\); convert the file"),
        ("rows.json", b'{"data": [], "version": 1}', r"found a mapping of data, version; save the list alone"),
    ],
    ids=["gbk", "lines", "semicolons", "tabs", "doubled", "list", "utf-16 lines", "utf-16", "wrapped"],
)
def test_one_sentence_says_what_to_do(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_rows(tmp_path / name)


def test_a_damaged_page_of_a_parquet_file(tmp_path: Path) -> None:
    """Its footer is whole, so the damage shows only when the column is read."""
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file, compression="snappy", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[60:300] = bytes(240)
    file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{file}: not a readable parquet file")):
        read_rows(file)


def test_damaged_text_in_a_parquet_file(tmp_path: Path) -> None:
    """Whole pages may hold bytes that are no text; that shows only when they become Python's."""
    file = tmp_path / "rows.parquet"
    broken = pyarrow.array([b"\xff\xfe broken"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"prompt": broken}), file)
    with pytest.raises(InputError, match=r"rows\.parquet: not a readable parquet file"):
        read_rows(file)
