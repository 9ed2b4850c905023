"""LoRA: the model is frozen, and beside each of its linear layers a product of two thin matrices is trained.

    y = W x + (alpha / rank) · B A x        A: (rank, inputs), drawn at random; B: (outputs, rank), 0 at first

Hu et al. 2022. With B = 0 the model computes what it did, to the last bit. The reference is the model without the products; it
shares the frozen weights, so that there is one copy of them. Under `compute.precision: bfloat16` they are kept in bfloat16;
A and B stay in float32. A model is saved as a plain folder with the products added to its weights; its subfolder `adapter` has
A and B in the form that peft loads.

There is no dropout: an algorithm whose rollout, old and new log-probabilities come from one policy cannot have noise in it.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveFloat, model_validator
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter
from transformers.pytorch_utils import Conv1D

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import write_json
from tasks.core.stage import Stage
from tasks.models.compute import ComputeConfig
from tasks.models.language import rounded


class AdapterConfig(Config):
    """params.yaml: adapter"""

    namespace = "adapter"

    rank: NonNegativeInt  # 0: no adapter, every weight is trained
    alpha: PositiveFloat
    targets: list[str] | None  # names of layers; null: every linear layer below the head

    @model_validator(mode="after")
    def _targets_need_a_rank(self) -> "AdapterConfig":
        if self.targets is not None and not (self.rank and self.targets):
            raise ValueError(
                f"targets ({self.targets}) with rank {self.rank} adapts nothing; set rank above 0 and name layers, "
                "or set targets to null"
            )
        return self


class LowRank(torch.nn.Module):
    """The product beside one layer."""

    def __init__(self, layer: Any, settings: AdapterConfig, generator: torch.Generator):
        super().__init__()
        outputs, inputs = reversed(layer.weight.shape) if isinstance(layer, Conv1D) else layer.weight.shape
        drawn = torch.rand(settings.rank, inputs, generator=generator) * 2 - 1
        self.down = Parameter((drawn / math.sqrt(inputs)).to(layer.weight.device))  # A
        self.up = Parameter(torch.zeros(outputs, settings.rank, device=layer.weight.device))  # B
        self.scale = settings.alpha / settings.rank

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * F.linear(F.linear(inputs, self.down), self.up)

    def product(self) -> Tensor:
        return self.scale * self.up @ self.down


class _Adapted:
    """A model whose state is what is trained of it, and which is saved as a plain model with the adapter beside it."""

    adapter_settings: AdapterConfig
    trained: frozenset[str]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in self.whole_state().items() if name in self.trained}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state, strict=False, assign=assign)  # type: ignore[misc]

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Of another dtype, but for what is trained: a model is rounded before it is saved, its adapter is not."""
        model: Any = self
        kept = [(parameter, parameter.data) for name, parameter in model.named_parameters() if name in self.trained]
        super().to(*args, **kwargs)  # type: ignore[misc]
        for parameter, values in kept:
            parameter.data = values
        return self

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        super().save_pretrained(folder, state_dict=merged_weights(self), **options)  # type: ignore[misc]
        save_adapter(self, Path(folder) / "adapter")

    def whole_state(self) -> dict[str, Any]:
        return super().state_dict()  # type: ignore[misc]


def add_adapter(model: Any, stage: Stage, name: str = "policy") -> None:
    """Freeze the model and give it an adapter, if `adapter` asks for one. The head of a reward model is trained along.

    name: of the model among those that the stage trains, so that each draws numbers of its own.
    """
    settings = stage.params(AdapterConfig)
    if not settings.rank:
        return
    layers = targeted_layers(model, settings.targets)
    heads = [part for part in model.children() if part not in (model.base_model, model.get_output_embeddings())]
    model.requires_grad_(False)
    for head in heads:
        head.requires_grad_(True)
    if stage.params(ComputeConfig).precision == "bfloat16":
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    generator = seeds.generator(stage.seed, "adapter", name)
    for layer in layers:
        layer.low_rank = LowRank(layer, settings, generator)
        layer.register_forward_hook(_add_product)
    original = type(model)
    model.__class__ = type(original.__name__, (_Adapted, original), {"__module__": original.__module__})
    model.adapter_settings = settings
    model.trained = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def refuse_adapter(stage: Stage, reason: str) -> None:
    """For algorithms that cannot train an adapter. reason: a clause that says why."""
    if stage.params(AdapterConfig).rank:
        raise InputError(f"params.yaml: `adapter.rank`: {reason}; set it to 0")


def targeted_layers(model: Any, targets: list[str] | None) -> list[Any]:
    """The linear layers below the head that have one of these names. Raises InputError for a name that none has."""
    linear = [(path.rpartition(".")[2], layer) for path, layer in model.base_model.named_modules() if is_linear(layer)]
    known = sorted({name for name, _ in linear})
    if unknown := [target for target in targets or () if target not in known]:
        raise InputError(
            f"params.yaml: `adapter.targets`: {type(model).__name__} has no linear layer called {unknown[0]}; "
            f"there are {', '.join(known)}"
        )
    return [layer for name, layer in linear if targets is None or name in targets]


def is_linear(layer: Any) -> bool:
    return isinstance(layer, torch.nn.Linear | Conv1D)  # Conv1D: of GPT-2, with the weight the other way round


def adapted_layers(model: Any) -> dict[str, Any]:
    """Path of every layer that has a product: the layer."""
    return {path: layer for path, layer in model.named_modules() if hasattr(layer, "low_rank")}


@torch.no_grad()
def merged_weights(model: Any) -> dict[str, Tensor]:
    """The state of the plain model: each product added in float32, the sum rounded to the dtype of the layer."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: value for name, value in model.whole_state().items() if ".low_rank." not in name}
    for path, layer in adapted_layers(model).items():
        product = layer.low_rank.product()
        total = layer.weight.float() + (product.T if isinstance(layer, Conv1D) else product)
        weights[f"{path}.weight"] = rounded(total, layer.weight.dtype, generator)
    return weights


def save_adapter(model: Any, folder: Path) -> None:
    """A and B, and a trained head, as peft lays them out: to be put on the model that was adapted."""
    state = model.state_dict()
    names = {name: name.replace(".low_rank.down", ".lora_A.weight").replace(".low_rank.up", ".lora_B.weight") for name in state}
    layers = adapted_layers(model).values()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"base_model.model.{names[name]}": value.contiguous() for name, value in state.items()},
        folder / "adapter_model.safetensors",
    )
    write_json(folder / "adapter_config.json", {
        "peft_type": "LORA",
        "r": model.adapter_settings.rank,
        "lora_alpha": model.adapter_settings.alpha,
        "target_modules": sorted({path.rpartition(".")[2] for path in adapted_layers(model)}),
        "modules_to_save": sorted({name.partition(".")[0] for name in state if ".low_rank." not in name}) or None,
        "fan_in_fan_out": any(isinstance(layer, Conv1D) for layer in layers),
        "inference_mode": True,
    })  # fmt: skip


def _add_product(layer: Any, args: Any, output: Tensor) -> Tensor:
    return output + layer.low_rank(args[0])
