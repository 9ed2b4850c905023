"""Files of other people's data, read only if their content is what was written down.

A file outside the repository is no dependency DVC could watch, so its sha256 stands beside its name. The refusal of an unpinned
one tells the value to write.
"""

import csv
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import InputError
from tasks.core.files import Row, expand_variables, read_json, read_jsonl, read_table


def pinned_file(name: str, sha256: str | None, where: str) -> Path:
    """The file, once its content is known to be what `where` says (a file and its key). ${VARIABLE} in the name is replaced."""
    file = Path(expand_variables(name, where))
    if not file.is_file():
        raise InputError(f"{where}: {file} is missing")
    with file.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 is None:
        raise InputError(f"{where}: {file} is not pinned; add `sha256: {actual}`")
    if sha256 != actual:
        raise InputError(f"{where}: {file} is not the pinned file; if the change is wanted, write `sha256: {actual}`")
    return file


def read_rows(file: Path) -> list[Row]:
    match file.suffix:
        case ".jsonl":
            return read_jsonl(file)
        case ".parquet":
            return read_table(file)
        case ".csv":
            return _read_csv(file)
        case ".json":
            rows = read_json(file)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                found = f"a mapping of {', '.join(rows)[:60]}" if isinstance(rows, dict) else "something else"
                raise InputError(f"{file}: expected a list of objects with named columns, found {found}; save the list alone")
            return rows
    raise InputError(f"{file}: `{file.suffix}` is not known; give .jsonl, .json, .csv or .parquet")


def _read_csv(file: Path) -> list[Row]:
    """Every value is text, however long. A line with more or fewer values than the header would shift its columns: refused."""
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.DictReader(stream, restkey="", restval=None, strict=True)
        rows = []
        try:
            _check_header(file, lines.fieldnames or [])
            for row in lines:
                if "" in row or None in row.values():
                    header = ", ".join(lines.fieldnames or [])
                    raise InputError(f"{file}:{lines.line_num}: not one value for each of the columns {header}")
                rows.append(row)
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not UTF-8 (byte {error.start}); convert the file") from None
        except csv.Error as error:
            raise InputError(f"{file}:{lines.line_num}: not valid CSV ({error})") from None
    return rows


def _check_header(file: Path, header: Sequence[str]) -> None:
    """Spreadsheets of many countries write semicolons: the header is then one name that holds them. Of two columns with one
    name, only one could be read."""
    doubled = next((name for name in header if header.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"{file}: two columns are called {doubled!r}; rename one")
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"{file}: its columns are separated by {name}; save it with commas")
