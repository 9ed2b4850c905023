"""The gate before training: Great Expectations judges the tables by what data/expectations says.

`python -m tasks.data.validate data` after the data is prepared, `… preferences` after the pairs are collected, `… prompt_log`
before Prompt-OIRL learns from its log. Every failing row is named by index and reason; a failing gate ends with exit code 1 and
publishes nothing, so no later stage can start.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table, write_json
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.data.evidence import Tables, disagreements, measure_data, measure_preferences
from tasks.data.expectations import Gate
from tasks.data.prompt_evidence import measure_prompt_log, repeats
from tasks.data.prompt_log import PromptLogConfig, read_prompt_log
from tasks.data.verdict import sentence, show
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
