"""What a sweep varies: axes of values over keys of params.yaml, and the variants that their product is.

A variant is what it changes in params.yaml and a name made of that. The name is its folder, its task in Prefect, its tag in
MLflow and, behind the name that the sweep was given, its experiment in DVC.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.engine.graph import Graph, dotted
from tasks.core.config import PARAMS, read_params
from tasks.core.errors import InputError, did_you_mean

SEED = "runtime.seed"
ALL = "all"  # as the value of a list of namespaces, such as policy.algorithms: every one that there is
LONGEST_NAME = 120  # characters: it becomes the name of a folder and of a git reference
EXAMPLE = "small: {base_model.hidden_size: 32}"
Params = dict[str, Any]  # dotted key of params.yaml -> value


@dataclass(frozen=True)
class Variant:
    """params: what it changes. shown: the value of every key that the sweep varies, changed here or not. listed: what a list of
    variants calls it."""

    name: str
    params: Params
    shown: Params
    listed: str = ""


@dataclass(frozen=True)
class Sweep:
    """base: the values in params.yaml of the keys that vary. given: whether the user named it, or what varies does. listed: the
    keys that vary from one listed variant to the next."""

    name: str
    given: bool
    base: Params
    variants: tuple[Variant, ...]
    listed: tuple[str, ...]

    @property
    def title(self) -> str:
        return " × ".join(self.keys)

    @property
    def keys(self) -> list[str]:
        return list(self.base)

    def experiment(self, variant: Variant) -> str:
        """What `dvc exp apply` calls it. A name derived from what varies would only say it twice."""
        return f"{self.name}-{variant.name}" if self.given else variant.name


def make_sweep(
    sets: Mapping[str, Sequence[Any]] | None,
    seeds: Sequence[int] | None,
    variants: Mapping[str, Params] | None,
    name: str | None,
) -> Sweep:
    """The product of all that is given. Raises InputError where nothing varies, or params.yaml has no such key."""
    values = read_params()
    lists = dict(sets or {}) | ({SEED: seeds} if seeds else {})
    short = _short_names(list(lists))
    axes: list[dict[str, Params]] = [dict(variants)] if variants else []
    keys = list(dict.fromkeys(key for axis in axes for params in axis.values() for key in params))
    listed = tuple(keys)
    for twice in [SEED] if seeds and SEED in (sets or {}) else [key for key in lists if key in keys]:
        raise InputError(f"`{twice}` is varied twice; leave one of the two out")
    keys += lists
    if not keys:
        raise InputError("nothing varies; say --set key=value,value or --seeds 0,1,2 or --list variants.yaml")
    known = list(dotted(values))
    for key in keys:
        if key not in known:
            raise InputError(f"{PARAMS} has no key `{key}`{did_you_mean(key, known)}")
    for key, choices in lists.items():
        if not choices:
            raise InputError(f"`{key}` has no values to take")
        axes.append({f"{short[key]}={_words(value)}": {key: value} for value in choices})
        if len(axes[-1]) < len(choices):
            raise InputError(f"`{key}` takes one value twice: {', '.join(map(str, choices))}")
    base = {key: _lookup(values, key) for key in keys}
    every = {key: names for key in keys if (names := _namespaces_beside(values, key))}
    made: dict[str, Variant] = {}
    for choice in product(*(axis.items() for axis in axes)):
        label = plain(",".join(label for label, _ in choice))
        params = {key: value for _, changes in choice for key, value in changes.items()}
        if label in made:
            raise InputError(f"two variants would both be called {label}; name them yourself with --list")
        written = {key: every[key] if value == ALL and key in every else value for key, value in params.items()}
        made[label] = Variant(label, written, base | params, choice[0][0] if variants else "")
    derived = ",".join([*(["list"] if variants else []), *short.values()])
    return Sweep(plain(name or derived), bool(name), base, tuple(made.values()), listed)


def in_order(sweep: Sweep, graph: Graph) -> list[Variant]:
    """The order to start them in: those next to each other should differ as early in the pipeline as possible.

    Variants at work at the same time then train different models; what later ones share with them is done and comes from the
    cache, where otherwise all would wait for the first to finish what they have in common.
    """
    reads = [[key for dep in stage.params for key in dep.params] for stage in graph.stages.values()]

    def first_stage(key: str) -> int:
        places = (place for place, read in enumerate(reads) if any(_within(key, one) or _within(one, key) for one in read))
        return next(places, len(reads))

    late_first = sorted(sweep.keys, key=first_stage, reverse=True)
    taken = {key: list(dict.fromkeys(repr(variant.shown[key]) for variant in sweep.variants)) for key in sweep.keys}
    return sorted(sweep.variants, key=lambda one: [taken[key].index(repr(one.shown[key])) for key in late_first])


def read_set(text: str) -> tuple[str, list[Any]]:
    """`policy.ppo.kl_coef=0.05,0.1`: what stands between the commas is YAML, so `[ppo, dpo],[ppo]` is two lists."""
    key, equals, given = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: say key=value,value")
    try:
        return key.strip(), list(YAML(typ="safe").load(f"[{given}]"))
    except YAMLError as error:
        reason = getattr(error, "problem", None) or error
        raise InputError(f"--set {text}: the values are not valid YAML ({reason}); quote what is text") from None


def read_list(file: Path) -> dict[str, Params]:
    """`name: {dotted.key: value}` for each variant; an empty one is params.yaml as it is."""
    try:
        found = YAML(typ="safe").load(file)
    except FileNotFoundError:
        raise InputError(f"{file} is missing; it should hold the variants, as in `{EXAMPLE}`") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(
            f"{file}:{mark.line + 1 if mark else 1}: not valid YAML ({getattr(error, 'problem', error)})"
        ) from None
    if not isinstance(found, dict) or not found:
        raise InputError(f"{file} should map names to params, as in `{EXAMPLE}`")
    for name, params in found.items():
        if not isinstance(params, dict | None):
            raise InputError(f"{file}: `{name}` is {params!r}; it should be params, as in `{EXAMPLE}`")
    return {str(name): params or {} for name, params in found.items()}


def plain(text: str) -> str:
    """What git, a file system and a shell all accept as a name."""
    name = re.sub(r"\.{2,}", ".", re.sub(r"[^\w.+=,-]+", "-", text)).strip("-.")
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name.removesuffix(".lock") or "variant"


def _short_names(keys: list[str]) -> dict[str, str]:
    """The last word of each key, or as many as tell it from the others."""
    short = {}
    for key in keys:
        words = key.split(".")
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        short[key] = next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)
    return short


def _words(value: Any) -> str:
    """A value in a name: [ppo, dpo] is ppo+dpo."""
    if isinstance(value, list):
        return "+".join(map(_words, value))
    if isinstance(value, dict):
        return "+".join(f"{key}={_words(inner)}" for key, inner in value.items())
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _namespaces_beside(values: Params, key: str) -> list[str]:
    """For a key that lists namespaces beside itself, as policy.algorithms lists policy.ppo and so on: all there are."""
    above = key.rpartition(".")[0]
    beside = _lookup(values, above) if above else values
    names = [name for name, inner in beside.items() if isinstance(inner, dict)]
    listed = _lookup(values, key)
    return names if isinstance(listed, list) and listed and set(map(str, listed)) <= set(names) else []


def _within(key: str, outer: str) -> bool:
    return f"{key}.".startswith(f"{outer}.")


def _lookup(values: Params, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values
