"""params.yaml: a typo must not train. Every refusal is one sentence that names the key and the nearest known one."""

from typing import ClassVar, Self

import pytest
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from tasks.core.config import Config, check_divides, lookup, policy_matrix, read_params
from tasks.core.errors import InputError

GOOD = """
train:
  learning_rate: 1.0e-3
  batch_size: 8
  micro_batch_size: 4
  shape: {hidden_size: 16}
policy:
  algorithms: [ppo, dpo]
  seeds: [0, 1]
  ppo: {gamma: 1.0}
"""


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    hidden_size: PositiveInt


class TrainConfig(Config):
    namespace = "train"

    learning_rate: float
    batch_size: PositiveInt
    micro_batch_size: PositiveInt
    shape: Shape

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_divides("micro_batch_size", self.micro_batch_size, "batch_size", self.batch_size)
        return self


class PpoConfig(Config):
    namespace = "policy.ppo"
    kl_in: ClassVar[str] = "reward"

    gamma: float


@pytest.fixture
def params(tmp_path):
    def write(text=GOOD, **replaced):
        for old, new in replaced.items():
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{old}:"))
            text = text.replace(line, new)
        (tmp_path / "params.yaml").write_text(text)
        return tmp_path / "params.yaml"

    return write


def refusal(config_class, path):
    with pytest.raises(InputError) as error:
        config_class.load(path)
    sentence = str(error.value)
    assert len(sentence.splitlines()) == 1
    assert str(path) in sentence
    return sentence


def test_a_namespace_becomes_a_frozen_object(params):
    config = TrainConfig.load(params())
    assert (config.learning_rate, config.batch_size, config.shape.hidden_size) == (1e-3, 8, 16)
    assert PpoConfig.load(params()).gamma == 1.0
    with pytest.raises(ValueError, match="frozen"):
        config.batch_size = 3


def test_a_whole_number_may_stand_for_a_float_and_nothing_else_is_converted(params):
    assert TrainConfig.load(params(learning_rate="  learning_rate: 1")).learning_rate == 1.0
    assert "`train.learning_rate` is '1e-3'" in refusal(TrainConfig, params(learning_rate='  learning_rate: "1e-3"'))
    assert "`train.batch_size` is 8.0" in refusal(TrainConfig, params(batch_size="  batch_size: 8.0"))
    assert "`train.batch_size` is True" in refusal(TrainConfig, params(batch_size="  batch_size: true"))
    assert "`train.batch_size` is None" in refusal(TrainConfig, params(batch_size="  batch_size:"))


def test_yaml_1_2_reads_an_exponent_without_a_point_as_a_number(params):
    """YAML 1.1 reads 3e-4 as text, a classic way to lose an afternoon."""
    assert TrainConfig.load(params(learning_rate="  learning_rate: 3e-4")).learning_rate == 3e-4


def test_an_unknown_key_names_the_nearest(params):
    sentence = refusal(TrainConfig, params(learning_rate="  learning_rte: 1.0e-3"))
    assert "unknown key `train.learning_rte`; did you mean `learning_rate`?" in sentence
    assert "(and 1 more)" in sentence  # the key it should have been is missing


def test_a_nested_unknown_key_names_the_nearest_of_its_level(params):
    sentence = refusal(TrainConfig, params(shape="  shape: {hiden_size: 16}"))
    assert "unknown key `train.shape.hiden_size`; did you mean `hidden_size`?" in sentence


class ShapesConfig(Config):
    namespace = "train"

    shapes: dict[str, Shape] | None


def test_the_nearest_is_named_inside_an_optional_mapping(params):
    sentence = refusal(ShapesConfig, params("train: {shapes: {mine: {hiden_size: 16}}}"))
    assert "unknown key `train.shapes.mine.hiden_size`; did you mean `hidden_size`?" in sentence


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
def test_a_number_is_finite(params, number):
    sentence = refusal(TrainConfig, params(learning_rate=f"  learning_rate: {number}"))
    assert "`train.learning_rate` is" in sentence
    assert "it should be a finite number" in sentence


def test_a_missing_key(params):
    assert "missing key `train.batch_size`" in refusal(TrainConfig, params(batch_size=""))
    assert "missing key `train.shape.hidden_size`" in refusal(TrainConfig, params(shape="  shape: {}"))


def test_a_missing_namespace_names_the_nearest(params):
    assert "missing key `train`; did you mean `trian`?" in refusal(TrainConfig, params(train="trian:"))
    assert "missing key `policy.ppo`; did you mean `pppo`?" in refusal(PpoConfig, params(ppo="  pppo: {gamma: 1.0}"))
    assert "missing key `policy.ppo`" in refusal(PpoConfig, params("policy: 3"))


def test_a_namespace_that_is_no_mapping(params):
    assert "`train` must be a mapping, found [1, 2]" in refusal(TrainConfig, params("train: [1, 2]"))


def test_batch_sizes_must_divide(params):
    sentence = refusal(TrainConfig, params(micro_batch_size="  micro_batch_size: 3"))
    assert "batch_size (8) must be a multiple of micro_batch_size (3)" in sentence


def test_out_of_range(params):
    assert "`train.batch_size` is 0; it should be greater than 0" in refusal(TrainConfig, params(batch_size="  batch_size: 0"))


def test_broken_yaml_names_the_line(params):
    assert "params.yaml:3: not valid YAML" in refusal(TrainConfig, params("train:\n  shape: {hidden_size: 16\npolicy: 1\n"))


def test_a_key_given_twice(params):
    assert "params.yaml:5: not valid YAML (found duplicate key" in refusal(
        TrainConfig, params(batch_size="  batch_size: 8\n  batch_size: 16")
    )


def test_not_a_mapping(params):
    assert "must be a mapping of namespaces, found list" in refusal(TrainConfig, params("- 1"))
    assert "must be a mapping of namespaces, found NoneType" in refusal(TrainConfig, params(""))


def test_a_missing_file(tmp_path):
    assert "is missing; run from the folder that holds it" in refusal(TrainConfig, tmp_path / "params.yaml")


def test_lookup_and_matrix(params, monkeypatch):
    values = read_params(params())
    assert lookup(values, "policy.ppo") == {"gamma": 1.0}
    monkeypatch.chdir(params().parent)
    assert policy_matrix() == [("ppo", 0), ("ppo", 1), ("dpo", 0), ("dpo", 1)]


def test_what_a_class_fixes_is_logged_and_cannot_be_set(params):
    assert PpoConfig.load(params()).model_dump() == {"kl_in": "reward", "gamma": 1.0}
    with pytest.raises(InputError, match=r"`policy\.ppo\.kl_in` is no choice, with this method it is always reward"):
        PpoConfig.load(params(ppo="  ppo: {gamma: 1.0, kl_in: loss}"))


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("{algorithms: ppo, seeds: [0]}", "`policy.algorithms` is 'ppo'; it should be a list such as [ppo, dpo]"),
        ("{algorithms: [ppo], seeds: 0}", "`policy.seeds` is 0; it should be a list such as [0, 1]"),
        ("{algorithms: [ppo], seeds: [0.5]}", "`policy.seeds` is [0.5]; it should be a list"),
        ("{algorithms: [ppo], seeds: [0, 0]}", "`policy.seeds` is [0, 0]; name each once"),
        ("{algorithms: [ppo, ppo], seeds: [0]}", "`policy.algorithms` is ['ppo', 'ppo']; name each once"),
    ],
)
def test_a_matrix_that_is_none(params, monkeypatch, policy, sentence):
    monkeypatch.chdir(params(f"policy: {policy}").parent)
    with pytest.raises(InputError) as error:
        policy_matrix()
    assert str(error.value).startswith(f"params.yaml: {sentence}")
