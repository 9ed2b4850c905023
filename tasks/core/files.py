"""Files that are whole or absent: atomic writes, tables as parquet, digests as DVC computes them."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeAlias

from tasks.core.errors import InputError

Row: TypeAlias = dict[str, Any]

NO_CONTENT = (  # what downloads, version control and editors leave in a folder
    ".cache", ".huggingface", ".git", ".gitattributes", ".gitignore", ".DS_Store", ".idea", ".vscode", ".ipynb_checkpoints",
    "__pycache__", "*~", "*.swp",
)  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Atomic, sorted, with a final newline: the same value is the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run the stage that writes it, or `dvc pull`") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None
    except json.JSONDecodeError as error:
        lines = "; a file with one object a line is called .jsonl" if error.msg == "Extra data" else ""
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg}){lines}") from None


def write_table(path: Path, rows: list[Row], columns: Sequence[str] | None = None, numbers: Sequence[str] = ()) -> None:
    """Parquet. columns: exactly these, as text but for the `numbers`; an empty table, or a column of nulls, then keeps its
    type."""
    import pyarrow
    import pyarrow.parquet

    types = {column: pyarrow.float64() if column in numbers else pyarrow.string() for column in columns or ()}
    schema = pyarrow.schema(list(types.items())) if columns else None
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)


def read_table(path: Path) -> list[Row]:
    """Rows of a parquet file written by an earlier stage."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run the stage that writes it, or `dvc pull`") from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # damage behind the footer is found late, by any of them
        raise InputError(f"{path}: not a readable parquet file ({error}); fetch it again") from None


def read_jsonl(path: Path) -> list[Row]:
    """Rows of a JSONL file; a broken line is refused as file:line."""
    rows = []
    if not path.is_file():
        raise InputError(f"{path} is missing")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number}: not UTF-8 (byte {error.start}); convert the file") from None
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not valid JSON ({error.msg}); fix or remove the line") from None
            if not isinstance(row, dict):
                raise InputError(
                    f"{path}:{number}: expected an object with named columns, found {type(row).__name__}; "
                    "one object a line, or a file that is one list of them and called .json"
                )
            rows.append(row)
    return rows


def expand_variables(text: str, where: str) -> str:
    """$NAME or ${NAME} becomes the environment variable; one that is not set is refused. where: file and key, to name it."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise InputError(f"{where}: ${match[1]} is not set; set it with `export {match[1]}=<folder>`")
        return os.environ[match[1]]

    return re.sub(r"\${?(\w+)}?", value, text)


def digest(path: Path) -> str:
    """md5 of a file, or of a folder's listing; the same string DVC writes into dvc.lock (`….dir` for a folder).

    What is no content of a folder does not count: two downloads of one model are the same model.
    """
    if path.is_file():
        return _md5(path)
    listing = [{"md5": _md5(file), "relpath": file.relative_to(path).as_posix()} for file in _content(path)]
    text = json.dumps(sorted(listing, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def files_of(path: Path) -> Iterator[Path]:
    """The file itself, or every file below the folder, in a fixed order."""
    if path.is_file():
        yield path
    else:
        yield from sorted(file for file in path.rglob("*") if file.is_file())


def _content(folder: Path) -> Iterator[Path]:
    for file in files_of(folder):
        if not any(fnmatch(part, pattern) for part in file.relative_to(folder).parts for pattern in NO_CONTENT):
            yield file


def publish(outputs: dict[Path, Path]) -> None:
    """Move finished outputs (final -> staged) into place, all or none: first beside their names, where it is seen whether all
    can be written, then under them."""
    beside = {final: final.with_name(f".{final.name}.new") for final in outputs}
    for final, staged in outputs.items():
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(staged, beside[final])
        except OSError as error:
            for other in beside.values():
                shutil.rmtree(other) if other.is_dir() else other.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(final)) from None
    for final, new in beside.items():
        if final.is_dir():
            shutil.rmtree(final)
        os.replace(new, final)


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
