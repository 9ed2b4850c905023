"""The gate before training: Great Expectations judges the tables by what data/expectations says.

`python -m tasks.data.validate data` after the data is prepared, `… preferences` after the pairs are collected, `… prompt_log`
before Prompt-OIRL learns from its log. Every failing row is named by index and reason; a failing gate ends with exit code 1 and
publishes nothing, so no later stage can start.
The only file that imports great_expectations, and late: the import takes 3 seconds.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table, write_json
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.data.evidence import Tables, disagreements, measure_data, measure_preferences
from tasks.data.prompt_evidence import measure_prompt_log, repeats
from tasks.data.prompt_log import PromptLogConfig, read_prompt_log
from tasks.data.verdict import ROWS_NAMED, Finding, sentence, show
from tasks.models.text import TaskConfig
from tasks.models.tokenizer import load_tokenizer


class ValidateDataConfig(Config):
    """params.yaml: validate_data"""

    namespace = "validate_data"

    expectations: str
    allow_contamination: bool


class ValidatePreferencesConfig(Config):
    """params.yaml: validate_preferences"""

    namespace = "validate_preferences"

    expectations: str


class ValidatePromptLogConfig(Config):
    """params.yaml: validate_prompt_log"""

    namespace = "validate_prompt_log"

    expectations: str


class ExpectationsConfig(Config):
    """A file of data/expectations: table -> [{expectation: arguments}]."""

    namespace = "expectations"

    tables: dict[str, list[dict[str, dict[str, Any]]]]


def validate_data(config: ValidateDataConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    tokenizer = load_tokenizer(stage.dep("models/tokenizer"))
    names = ("corpus", "demonstrations", "prompts", "preferences")
    tables = {name: read_table(stage.dep(f"data/prepared/{name}.parquet")) for name in names}
    decide(stage, tables, lambda: measure_data(tables, tokenizer, task), config.expectations, config.allow_contamination)


def validate_preferences(config: ValidatePreferencesConfig, stage: Stage) -> None:
    """Ties, and annotators who contradict themselves, are figures, not failures."""
    task = stage.params(TaskConfig)
    allow_contamination = stage.params(ValidateDataConfig).allow_contamination
    tokenizer = load_tokenizer(stage.dep("models/tokenizer"))
    prompts = read_table(stage.dep("data/prepared/prompts.parquet"))
    tables = {name: read_table(stage.dep(f"data/{name}.parquet")) for name in ("preferences", "feedback")}

    def measure() -> tuple[Tables, list[Row]]:
        stage.record(**disagreements(tables["preferences"], tables["feedback"]))
        return measure_preferences(tables["preferences"], tables["feedback"], prompts, tokenizer, task)

    decide(stage, tables, measure, config.expectations, allow_contamination)
    stage.report("reports/validate_preferences")


def validate_prompt_log(config: ValidatePromptLogConfig, stage: Stage) -> None:
    """The log is read as the fit will read it, split included. Repeated calls that disagree are figures, not failures.

    Test questions among the training questions do not stop this gate: experiments by folds do not use the split. What does use
    it refuses such a log by the verdict (tasks/data/prompt_log.py, split_leaks).
    """
    source = stage.params(PromptLogConfig)
    allow_contamination = stage.params(ValidateDataConfig).allow_contamination
    log = read_prompt_log(source, stage.dep(source.source))

    def measure() -> tuple[Tables, list[Row]]:
        stage.record(**repeats(log))
        return measure_prompt_log(log), []

    decide(stage, {"prompt_log": log}, measure, config.expectations, allow_contamination, leaks_stop=False)
    stage.report("reports/validate_prompt_log")


def decide(
    stage: Stage,
    tables: Tables,
    measure: Callable[[], tuple[Tables, list[Row]]],
    expectations: str,
    allow_contamination: bool,
    leaks_stop: bool = True,
) -> None:
    """Judge, record, and stop the pipeline with one sentence if the gate fails.

    First the tables as they are; only rows that are whole can be measured, so what `measure` gives (tables, and decoded
    examples) comes second. Contamination that is allowed does not stop the pipeline: the verdict and its readers say so.
    leaks_stop: False leaves contamination that is not allowed to the readers, who find the sentence as `refusal`.
    """
    gate = Gate(stage.dep(expectations))
    findings = gate.judge(tables)
    examples: list[Row] = []
    if all(finding.success for finding in findings):
        measured, examples = measure()
        gate.refuse_unknown({**tables, **measured})
        findings += gate.judge(measured)
    failures = [finding for finding in findings if not finding.success]
    leaks = [finding for finding in failures if finding.is_contamination]
    contamination = {finding.subject: finding.failed for finding in leaks}
    refused = [finding for finding in failures if not (allow_contamination and finding.is_contamination)]
    stopping = [finding for finding in refused if leaks_stop or not finding.is_contamination]
    verdict = {
        "success": not refused,
        "contaminated": bool(contamination),
        "contamination": contamination,
        "refusal": sentence(refused, expectations) if refused else None,
        "expectations": [asdict(finding) for finding in findings],
        "examples": examples,
    }
    written = stage.out(f"reports/{stage.name}") / "verdict.json"
    write_json(written, verdict)
    stage.tracker.file(written)  # also when nothing is published
    stage.tracker.tag("contaminated", str(bool(contamination)).lower())
    with tempfile.TemporaryDirectory() as docs:
        gate.write_docs(Path(docs))
        stage.tracker.file(Path(docs), "data_docs")
    stage.table("tokenized_examples", examples)
    stage.record(
        expectations=len(findings),
        failed_expectations=len(failures),
        contaminated_prompts=max(contamination.values(), default=0),
    )
    show(stage.name, findings)
    if stopping:
        raise InputError(sentence(stopping, expectations))


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


if __name__ == "__main__":
    match sys.argv.pop(1) if len(sys.argv) > 1 else None:
        case "data":
            run(ValidateDataConfig, validate_data)
        case "preferences":
            run(ValidatePreferencesConfig, validate_preferences)
        case "prompt_log":
            run(ValidatePromptLogConfig, validate_prompt_log)
        case other:
            sys.exit(f"say what to validate, `data`, `preferences` or `prompt_log`; found {other}")
