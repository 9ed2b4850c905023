"""Where the data comes from: a sources file names a generator, files or hub data sets, each pinned to its content.

A file is pinned by its sha256 (tasks/data/pinned.py), a hub data set by the commit of its repository; what is not is refused.
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, TypeAlias

from pydantic import Field, model_validator

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.formats import Example, FieldName, answer_after, read_examples
from tasks.data.generate import GenerateConfig
from tasks.data.pinned import pinned_file, read_rows
from tasks.data.splits import TEST_SHARE

Table: TypeAlias = Literal["corpus", "demonstrations", "prompts", "preferences", "feedback"]


class DataSet(Config):
    """One file, or one split of a hub data set, and the tables it feeds."""

    tables: list[Table]
    file: str | None = None  # .jsonl, .json, .csv or .parquet; ${VARIABLE} is replaced
    sha256: str | None = None
    hub: str | None = None  # owner/name
    revision: str | None = None
    subset: str | None = None
    hub_split: str = "train"
    split: Literal["train", "test"] | None = None  # what the file is; null: each row by hash of its query
    test_share: Annotated[float, Field(ge=0, le=0.9)] = TEST_SHARE  # by hash; a further twentieth is validation
    columns: dict[FieldName, str] = Field(default_factory=dict)
    answer_after: str | None = None  # the reference is what follows this in the answer
    drop_empty: bool = False  # leave out, and count, examples without a text or a value where one belongs
    ignore: list[str] = Field(default_factory=list)  # columns to read as if they were not there

    @property
    def origin(self) -> tuple[str, str]:
        """What it is called, and the pin of its content."""
        return (self.file, self.sha256 or "") if self.file else (self.hub or "", self.revision or "")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.file is None) == (self.hub is None):
            raise ValueError("name either a `file` or a `hub` data set")
        if self.hub and not self.revision:
            raise ValueError(f"{self.hub} needs a `revision`, the commit of its repository")
        return self


class SourcesConfig(Config):
    """A file of data/sources: the instructions in use, and what the tables are made of."""

    namespace = "sources"

    instructions: str
    generate: GenerateConfig | None = None
    sets: dict[str, DataSet] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.generate is None) == (self.sets is None):
            raise ValueError("name either what to `generate` or the `sets` to read")
        return self


class InstructionsConfig(Config):
    """A file of data/instructions: candidate instructions by id, and which one prompts are written with."""

    namespace = "instructions"

    default: str
    texts: dict[str, str]

    @model_validator(mode="after")
    def _default_is_there(self) -> Self:
        if self.default not in self.texts:
            raise ValueError(f"default `{self.default}` is not among the texts: {', '.join(self.texts)}")
        return self


class LoadedSet(NamedTuple):
    """A data set that has been read; without_text: rows left out because a text was empty."""

    config: DataSet
    examples: list[Example]
    without_text: int


def read_sets(config: SourcesConfig, path: Path) -> list[LoadedSet]:
    """Every data set of the sources file at `path`. Raises InputError for what is missing, changed or not as described."""
    loaded = []
    for name, data_set in (config.sets or {}).items():
        where = f"{path}: sources.sets.{name}"
        if data_set.hub:
            origin, rows = f"{data_set.hub}@{data_set.revision}", _from_hub(data_set, where)
        else:
            file = pinned_file(data_set.file or "", data_set.sha256, where)
            origin, rows = str(file), read_rows(file)
        examples, without_text = read_examples(rows, origin, name, data_set.columns, data_set.drop_empty, data_set.ignore)
        if data_set.answer_after:
            examples = [answer_after(example, data_set.answer_after, origin) for example in examples]
        loaded.append(LoadedSet(data_set, examples, without_text))
    return loaded


def _from_hub(data_set: DataSet, where: str) -> list[Row]:
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(data_set.hub, data_set.subset, split=data_set.hub_split, revision=data_set.revision)
    except Exception as error:  # offline, unknown name, unknown revision: each library layer raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise InputError(
            f"{where}: {data_set.hub} at {data_set.revision} cannot be loaded ({reason}); "
            "without network, save it as a file and name the `file`"
        ) from None
    return list(loaded)
