"""From sources to what every later stage reads: corpus, demonstrations, prompts, preferences, feedback, and the tokenizer.

Nothing is cleaned in silence: what cannot be used is refused, what is too long is refused or counted, pairs whose sides are one
text to a model are left out and counted, the rest is for the gate.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import write_json, write_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.data.arithmetic import BOOK
from tasks.data.lengths import fit
from tasks.data.sources import InstructionsConfig, SourcesConfig, read_sets
from tasks.data.tables import (
    COLUMNS,
    NUMBERS,
    Tables,
    add_prompts,
    collected,
    doubled,
    generated,
    training_text,
    whole_rankings,
)
from tasks.models.chat import adopt_template
from tasks.models.external import pinned
from tasks.models.text import TaskConfig, tell_apart
from tasks.models.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PrepareDataConfig(Config):
    """params.yaml: prepare_data"""

    namespace = "prepare_data"

    sources: str
    max_rows: PositiveInt | None
    too_long: Literal["fail", "drop"]
    tokenizer: str | None
    tokenizer_revision: str | None
    chat: bool
    template_options: dict[str, Any] | None
    vocab_size: PositiveInt


def prepare(config: PrepareDataConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    path = stage.dep(config.sources)
    sources = SourcesConfig.load(path)
    instructions = InstructionsConfig.load(stage.dep(sources.instructions))
    tokenizer = None
    if config.tokenizer:
        source = pinned(config.tokenizer, config.tokenizer_revision, config.namespace, "tokenizer")
        tokenizer = load_tokenizer(source, config.tokenizer_revision)

    data_sets = read_sets(sources, path)
    if config.chat or config.template_options or any(example.turns for each in data_sets for example in each.examples):
        tokenizer = chatting(tokenizer, config)
    if sources.generate:
        stage.dep(BOOK.as_posix())
        tables = generated(sources.generate, instructions, stage.runtime.seed, config.max_rows)
    else:
        tables = collected(data_sets, instructions.default, config.max_rows)
    add_prompts(tables, instructions, task.prompt_format, tokenizer, config.chat)
    if tokenizer is None:
        tokenizer = train_tokenizer(training_text(tables), config.vocab_size)
    fitting = {table: fit(table, rows, tokenizer, task, config.too_long) for table, rows in tables.items()}
    fitting["feedback"] = whole_rankings(fitting["feedback"], tables["feedback"])
    pairs = fitting["preferences"]
    differ = tell_apart(tokenizer, pairs, task.max_new_tokens)
    refuse_empty(fitting, config.sources)
    if pairs and not any(differ):
        raise InputError(f"{config.sources}: the sides of all {len(pairs)} pairs are one text to a model; name other columns")

    for data_set in data_sets:
        name, pin = data_set.config.origin
        stage.tracker.input(name, pin[:36])  # as long as MLflow lets a digest be
    without_text = sum(data_set.without_text for data_set in data_sets)
    stage.record(**count(tables, fitting), **{"dropped/without_text": without_text}, vocab_size=len(tokenizer))
    fitting["preferences"] = [row for row, is_pair in zip(pairs, differ, strict=True) if is_pair]
    stage.record(**{"dropped/degenerate_pairs": differ.count(False), "rows/preferences": len(fitting["preferences"])})
    for table, rows in fitting.items():
        rows = [{column: row[column] for column in COLUMNS[table]} for row in rows]
        write_table(stage.out(f"data/prepared/{table}.parquet"), rows, COLUMNS[table], NUMBERS)
        stage.table(table, rows[:20])
    texts = [{"id": id, "text": text} for id, text in instructions.texts.items()]
    write_json(stage.out("data/prepared/instructions.json"), {"default": instructions.default, "instructions": texts})
    tokenizer.save_pretrained(stage.out("models/tokenizer"))
    stage.report("reports/prepare_data")


def chatting(tokenizer: "PreTrainedTokenizerBase | None", config: PrepareDataConfig) -> "PreTrainedTokenizerBase | None":
    """The tokenizer as its chat template wants it. Messages can do without a template, if nobody asked for one."""
    if tokenizer is not None and (tokenizer.chat_template or config.chat or config.template_options):
        adopt_template(tokenizer, config.template_options)
    elif config.chat or config.template_options:
        raise InputError(
            "prepare_data.chat: a tokenizer trained here has no chat template; name one in `prepare_data.tokenizer`"
        )
    return tokenizer


def refuse_empty(tables: Tables, sources: str) -> None:
    """Training needs demonstrations; every policy needs prompts to learn from and prompts to be tested on."""
    splits = {row["split"] for row in tables["prompts"]}
    missing = [f"{split} prompts" for split in ("train", "test") if split not in splits]
    if not tables["demonstrations"]:
        missing.append("demonstrations")
    if missing:
        raise InputError(f"{sources}: there are no {missing[0]}; add data, or raise the limits of `task` if all were too long")


def count(tables: Tables, fitting: Tables) -> dict[str, float]:
    """Rows of each table, of each split of the prompts, and rows left out as too long; how many demonstrations are right."""
    splits = Counter(row["split"] for row in fitting["prompts"])
    figures: dict[str, float] = {f"rows/{table}": len(rows) for table, rows in fitting.items()}
    figures |= {f"rows/prompts_{split}": number for split, number in splits.items()}
    figures |= {f"dropped/{table}": len(tables[table]) - len(fitting[table]) for table in tables}
    judged = [row["right"] for row in fitting["demonstrations"] if "right" in row]
    again = {table: doubled(table, rows) for table, rows in fitting.items() if table != "corpus"}
    for table, number in again.items():
        if number:
            print(f"prepare_data: {number} of {len(fitting[table])} {table} repeat another; intervals will be too narrow")
            figures[f"doubled/{table}"] = number
    return figures | ({"right_demonstrations": sum(judged) / len(judged)} if judged else {})


if __name__ == "__main__":
    run(PrepareDataConfig, prepare)
