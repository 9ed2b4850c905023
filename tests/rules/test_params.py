"""params.yaml and the Config classes say the same: every key is a field, every field is a key, every policy has a file."""

import copy
import importlib

import pytest

from flows.engine.graph import dotted
from flows.engine.sweep.axes import read_list
from tasks.core.config import Config, lookup, read_params
from tests.rules.code import REPO, calls, modules, namespaces, tree

MATRIX = {"algorithms", "seeds"}  # of `policy`: read by dvc.yaml and by policy_matrix()


@pytest.fixture(scope="module")
def params():
    return read_params(REPO / "params.yaml")


@pytest.fixture(scope="module")
def configs():
    """Config class by namespace, of those that stand for a namespace of params.yaml."""
    for module in modules():
        if module.startswith("tasks"):
            importlib.import_module(module)
    return {config.namespace: config for config in subclasses(Config) if "namespace" in vars(config)}


def subclasses(config):
    return [
        found
        for below in config.__subclasses__()
        if below.__module__.startswith("tasks.")
        for found in (below, *subclasses(below))
    ]


def written_apart():
    """Namespaces of Configs that are loaded from a file of their own: `XConfig.load(path)`."""
    owners = [getattr(call.func, "value", None) for module in modules() for call in calls(tree(module), "load") if call.args]
    return {namespaces()[owner.id] for owner in owners if getattr(owner, "id", "") in namespaces()}


def inside_others(configs):
    """Namespaces that are a part of another, such as reward.functions: some stages read the part alone."""
    return {name for name in configs if name.rpartition(".")[0] in configs}


def keys(params):
    """The namespaces that are there: policy.ppo and so on, and every other top-level key."""
    return {name for name in params if name != "policy"} | {f"policy.{name}" for name in params["policy"].keys() - MATRIX}


def test_every_namespace_has_a_config_and_every_config_a_namespace(params, configs):
    assert configs.keys() - written_apart() - inside_others(configs) == keys(params)
    assert all(lookup(params, name) for name in inside_others(configs))
    assert len(keys(params)) >= 16
    assert params["policy"].keys() >= MATRIX


def test_every_key_is_a_field_and_every_field_a_key(params, configs):
    seen = 0
    for namespace in keys(params) | inside_others(configs):
        values = lookup(params, namespace)
        assert values.keys() == configs[namespace].model_fields.keys(), namespace
        seen += len(values)
    assert seen > 80


def test_the_params_as_they_are_committed_are_accepted(params, configs):
    for namespace in keys(params):
        assert configs[namespace].load(REPO / "params.yaml")


@pytest.mark.parametrize("file", sorted((REPO / "data/variants").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_variants_are_accepted(params, configs, file):
    """Every key is one of params.yaml, every value one that the stage takes, and no two variants of a file are the same."""
    variants = read_list(file)
    assert len(variants) == len({repr(sorted(changes.items(), key=repr)) for changes in variants.values()})
    for changes in variants.values():
        assert changes.keys() <= set(dotted(params))
        changed = copy.deepcopy(params)
        for key, value in changes.items():
            above, _, name = key.rpartition(".")
            lookup(changed, above)[name] = value
        for namespace in keys(params):
            assert configs[namespace].model_validate(lookup(changed, namespace))


def test_no_field_has_a_default(params, configs):
    """What is not in params.yaml cannot be compared, logged or hashed."""
    for namespace in keys(params) | inside_others(configs):
        assert [name for name, field in configs[namespace].model_fields.items() if not field.is_required()] == []


def test_every_policy_is_a_module(params):
    policies = params["policy"].keys() - MATRIX
    assert policies >= {"ppo", "grpo", "dpo", "raft"}
    assert set(params["policy"]["algorithms"]) <= policies
    files = {module.split(".")[-1] for module in modules() if module.startswith("tasks.algorithms.")}
    assert files == policies | {"base_model", "sft", "judge_model", "reward_model"}
