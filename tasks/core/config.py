"""params.yaml as typed objects: one Config class per namespace, every key known, every key required.

An alignment run costs hours, so a typo must not train: an unknown key, a missing key or a wrong type is refused with
a sentence that names the key and the nearest known one.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, PositiveInt, SerializerFunctionWrapHandler, ValidationError, model_serializer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.errors import InputError, did_you_mean

PARAMS = Path("params.yaml")


class Config(BaseModel):
    """Base of every namespace. Frozen, strict (no "3" for 3), and closed: no key beyond the declared ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False)

    namespace: ClassVar[str]

    @model_serializer(mode="wrap")
    def _with_constants(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a class fixes is logged like what params.yaml says."""
        return {name: getattr(self, name) for name in sorted(constants(type(self)))} | dump(self)

    @classmethod
    def load(cls, path: Path = PARAMS) -> Self:
        """The namespace of this class, read from params.yaml. Raises InputError with one sentence."""
        values = lookup(read_params(path), cls.namespace, path)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(_sentence(error, cls, path)) from None


class RuntimeConfig(Config):
    """params.yaml: runtime. What the numbers depend on besides the method: one seed, the thread count, the device."""

    namespace = "runtime"

    seed: int
    threads: PositiveInt
    device: str


def constants(cls: type[BaseModel]) -> set[str]:
    """Names of what a Config class fixes: the method has no choice there."""
    return cls.__class_vars__ - Config.__class_vars__


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    try:
        values = deepcopy(_parse(path.read_bytes()))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run from the folder that holds it") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of namespaces, found {type(values).__name__}")
    return values


@lru_cache(maxsize=1)
def _parse(text: bytes) -> Any:
    """Read once, though a stage loads a dozen namespaces of it: YAML is slow."""
    return YAML(typ="safe").load(text)


def lookup(params: dict[str, Any], namespace: str, path: Path = PARAMS) -> dict[str, Any]:
    """params["policy"]["ppo"] for "policy.ppo"; raises InputError naming the part that is missing."""
    values: Any = params
    walked: list[str] = []
    for part in namespace.split("."):
        walked.append(part)
        if not isinstance(values, dict) or part not in values:
            hint = did_you_mean(part, values if isinstance(values, dict) else {})
            raise InputError(f"{path}: missing key `{'.'.join(walked)}`{hint}")
        values = values[part]
    if not isinstance(values, dict):
        raise InputError(f"{path}: `{namespace}` must be a mapping, found {values!r}")
    return values


def check_divides(small_name: str, small: int | None, large_name: str, large: int) -> None:
    """Batch sizes divide exactly, or the run would silently train on other numbers than the params say. None: not divided."""
    if small and large % small:
        raise ValueError(f"{large_name} ({large}) must be a multiple of {small_name} ({small})")


def policy_matrix() -> list[tuple[str, int]]:
    """(algorithm, seed) of every policy stage, in the order of params.yaml; each once, or its figures would count twice."""
    policy = lookup(read_params(), "policy")
    for name, kind in (("algorithms", str), ("seeds", int)):
        entries = policy.get(name)
        if not isinstance(entries, list) or not all(type(entry) is kind for entry in entries):
            example = "[ppo, dpo]" if kind is str else "[0, 1]"
            raise InputError(f"{PARAMS}: `policy.{name}` is {entries!r}; it should be a list such as {example}")
        if len(set(entries)) < len(entries):
            raise InputError(f"{PARAMS}: `policy.{name}` is {entries!r}; name each once")
    return [(algorithm, seed) for algorithm in policy["algorithms"] for seed in policy["seeds"]]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _sentence(error: ValidationError, cls: type[Config], path: Path) -> str:
    """The most telling of pydantic's errors, as one sentence."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    first = details[0]
    key = ".".join([cls.namespace, *map(str, first["loc"])])
    name = str(first["loc"][-1]) if first["loc"] else ""
    match first["type"]:
        case "extra_forbidden":
            says = f"unknown key `{key}`{did_you_mean(name, _known_keys(cls, first['loc'][:-1]))}"
            if name in constants(cls):
                says = f"`{key}` is no choice, with this method it is always {getattr(cls, name)}"
        case "missing":
            says = f"missing key `{key}`"
        case "value_error":
            says = f"`{key.rstrip('.')}`: {first['ctx']['error']}"
        case _:
            reason = first["msg"].replace("Input should be", "it should be")
            says = f"`{key}` is {first['input']!r}; {reason}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{path}: {says}{more}"


def _known_keys(cls: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Keys of the (possibly nested) config at this location."""
    for part in location:
        field = cls.model_fields.get(str(part))
        cls = next(_models(field.annotation if field else None), cls)
    return list(cls.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type such as dict[str, Model] | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
