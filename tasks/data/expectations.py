"""The expectations of a file of data/expectations, judged by Great Expectations.

The only file that imports great_expectations, and late: the import takes 3 seconds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.evidence import Tables
from tasks.data.verdict import ROWS_NAMED, Finding


class ExpectationsConfig(Config):
    """A file of data/expectations: table -> [{expectation: arguments}]."""

    namespace = "expectations"

    tables: dict[str, list[dict[str, dict[str, Any]]]]


class Gate:
    """The expectations of one file, and a Great Expectations context that lives in memory and opens no socket."""

    def __init__(self, path: Path):
        import great_expectations
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self.path, self.suites = path, ExpectationsConfig.load(path).tables
        self.context = great_expectations.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self.source = self.context.data_sources.add_pandas("tables")

    def judge(self, tables: Tables) -> list[Finding]:
        """Every expectation on these tables, in the order of the file."""
        names = [name for name in self.suites if name in tables]
        return [finding for name in names for finding in self._judge(name, tables[name])]

    def refuse_unknown(self, tables: Tables) -> None:
        unknown = [name for name in self.suites if name not in tables]
        if unknown:
            raise InputError(f"{self.path}: there is no table `{unknown[0]}` to judge; there are {', '.join(tables)}")

    def write_docs(self, folder: Path) -> None:
        """The Data Docs: HTML for humans."""
        self.context.add_data_docs_site(
            "docs",
            {
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
            },
        )
        self.context.build_data_docs(site_names=["docs"])

    def _judge(self, name: str, rows: Sequence[Row]) -> list[Finding]:
        """An empty table has nothing to judge but its row count."""
        import great_expectations
        import pandas

        entries = [entry for entry in self.suites[name] if rows or "expect_table_row_count_to_be_between" in entry]
        expectations = [_expectation(entry, index, f"{self.path}: {name}") for index, entry in enumerate(entries)]
        suite = self.context.suites.add(great_expectations.ExpectationSuite(name, expectations=expectations))
        batch = self.source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        validation = great_expectations.ValidationDefinition(name=name, data=batch, suite=suite)
        outcome = self.context.validation_definitions.add(validation).run(
            batch_parameters={"dataframe": pandas.DataFrame(list(rows), dtype=object)},
            result_format={"result_format": "COMPLETE"},
        )
        results: list[Any] = sorted(outcome.results, key=_position)
        return [_finding(name, entry, result, rows) for entry, result in zip(entries, results, strict=True)]


def _expectation(entry: dict[str, dict[str, Any]], index: int, where: str) -> Any:
    """The class named by the entry, with its arguments."""
    from great_expectations.expectations.registry import get_expectation_impl

    (name, arguments), *more = entry.items()
    try:
        if more:
            raise ValueError("one expectation per entry")
        return get_expectation_impl(name)(**arguments, meta={"index": index})
    except Exception as error:  # great_expectations raises its own for a name, pydantic's for an argument
        reason = ": ".join(line.strip() for line in str(error).strip().splitlines()[-2:])
        raise InputError(f"{where}: {name} cannot be used ({reason})") from None


def _position(result: Any) -> int:
    """Great Expectations returns what could not run first; the file's order is easier to read."""
    return int(result.expectation_config.meta["index"])


def _finding(table: str, entry: dict[str, dict[str, Any]], result: Any, rows: Sequence[Row]) -> Finding:
    """The result in our words: what each failing row holds, or for a measured column, where that was found."""
    (name, arguments), outcome = next(iter(entry.items())), result.result
    if "element_count" not in outcome:  # on the table as a whole, or it could not run
        details = outcome.get("details", {}).get("mismatched") or outcome.get("observed_value", _error(result))
        found = [] if result.success else [{"found": str(details)}]
        return Finding(table, name, arguments, result.success, 1, int(not result.success), found)
    indices, column = outcome["unexpected_index_list"], arguments["column"]
    found = [
        {
            "index": rows[index].get("row", index),
            "id": rows[index].get("id"),
            "reason": arguments.get("notes", name),
            "found": rows[index].get(f"{column}_where") or f"{str(rows[index][column])[:80]!r}",
        }
        for index in indices[:ROWS_NAMED]
    ]
    return Finding(table, name, arguments, result.success, outcome["element_count"], len(indices), found)


def _error(result: Any) -> str:
    """Why an expectation could not run, such as a column that is not there."""
    errors = [error for error in result.exception_info.values() if isinstance(error, dict)]
    return str(errors[0]["exception_message"]) if errors else "no value"
