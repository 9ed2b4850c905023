"""Causal language models as plain Hugging Face folders: build, load, save."""

import copy
import errno
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tasks.core.errors import InputError
from tasks.core.stage import Stage
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.data_parallel import rank
from tasks.models.tokenizer import load_tokenizer

transformers.utils.logging.set_verbosity_error()  # a new head is announced as missing weights
transformers.utils.logging.disable_progress_bar()  # a bar per file saved says nothing; the stage shows its own


def build_model(tokenizer: Any, seed: int, **shape: Any) -> Any:
    """A Llama-shaped model with random weights. shape: fields of LlamaConfig."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=shape["num_attention_heads"],
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_model(source: str | Path, device: str = "cpu", revision: str | None = None) -> Any:
    """A model from a folder or the hub: safetensors only, no remote code. Raises InputError with one sentence."""
    check_model_folder(source, revision)
    folder = Path(source).is_dir()
    try:
        loading: Any = AutoModelForCausalLM.from_pretrained(
            source,
            revision=None if folder else revision,
            trust_remote_code=False,
            use_safetensors=True,
            dtype="auto",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        model, loaded = loading
        _check_weights(model, loaded)
    except Exception as error:  # whatever the libraries raise for a config or weights that they cannot read
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if folder:
            raise InputError(f"model folder {source} cannot be loaded ({reason})") from None
        raise InputError(
            f"model {source} at {revision} is neither in the local cache nor reachable ({reason}); "
            "download it to a folder and name the folder"
        ) from None
    return in_float32(model).to(device)


def in_float32(model: Any) -> Any:
    """The model, which computes and learns in float32 and is saved in the precision it came in."""
    model.saved_dtype = model.dtype
    return model.float()


def _check_weights(model: Any, loaded: dict[str, Any]) -> None:
    """Refuse weights that only the config or only the file knows: they would be random or be left out. Refuse NaN."""
    if loaded["missing_keys"]:
        raise ValueError(f"its weights file lacks {min(loaded['missing_keys'])}; weights are missing")
    if loaded["mismatched_keys"]:
        name, stored, expected = min(loaded["mismatched_keys"])
        raise ValueError(f"{name} is {tuple(stored)} in its weights file and {tuple(expected)} by its config.json")
    left_out = [name for name in loaded["unexpected_keys"] if name.startswith(f"{model.base_model_prefix}.")]
    if left_out:
        raise ValueError(f"its weights file holds {min(left_out)}, which the model of its config.json does not have")
    if bad := _not_finite(model):
        raise ValueError(f"`{bad}` in its weights file is not finite")


def load_policy(folder: Path, device: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a stage's output, ready to train. Dropout, if the model has any, stays off: sampling and
    training must see the same policy."""
    return load_model(folder, device).eval(), load_tokenizer(folder)


def open_model(stage: Stage, folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of a stage's output, which computes as `compute` says."""
    model, tokenizer = load_policy(folder, stage.device)
    return apply_settings(model, stage.params(ComputeConfig)), tokenizer


def frozen_copy(model: Any) -> Any:
    """The same weights without gradient, such as the reference. Those that are frozen already are shared, not copied."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """A folder that `AutoModel….from_pretrained` loads, tokenizer included, in the precision the model came in. The model
    itself is rounded to it, which takes no more memory; an adapter stays as it is, its sum with the weights is rounded."""
    if rank():
        return  # the first process of the stage has the same weights
    if bad := _not_finite(model):
        raise InputError(f"`{bad}` of the trained model is not finite, so it is not published; lower the learning rate")
    dtype, generator = getattr(model, "saved_dtype", model.dtype), torch.Generator().manual_seed(0)
    try:
        for parameter in () if hasattr(model, "adapter_settings") else model.parameters():
            parameter.data = rounded(parameter.data, dtype, generator)
        model.to(dtype)
        model.save_pretrained(folder, safe_serialization=True)
    except SafetensorError as error:
        raise OSError(errno.ENOSPC, str(error), str(folder)) from None
    tokenizer.save_pretrained(folder)


def rounded(values: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Stochastic rounding: the values in this dtype, each up or down at random and right on average; what it holds stays.

    The weights of a bfloat16 source stand on its numbers, and few steps of training move them by less than half the distance
    to the next: rounded to the nearest, most would be back where they were, and the saved model would have learned nothing.
    """
    if values.dtype == dtype:
        return values
    nearest, (_, exponent) = values.to(dtype), values.frexp()
    distance = torch.full_like(values, torch.finfo(dtype).eps).ldexp(exponent - 1)
    drawn = torch.rand(values.shape, generator=generator).to(values.device) - 0.5
    return nearest.where(nearest == values, (values + drawn * distance).to(dtype))


def _not_finite(model: Any) -> str | None:
    """The first parameter that holds NaN or infinity."""
    return next((name for name, value in model.named_parameters() if not bool(value.isfinite().all())), None)


def check_model_folder(source: str | Path, revision: str | None) -> None:
    """Refuse what cannot be loaded safely, before anything is read."""
    folder = Path(source)
    if not folder.exists():
        if str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
            raise InputError(f"model folder {source} does not exist")
        if not revision:
            raise InputError(
                f"hub model {source}: state the commit to use as `revision`, so that a rerun loads the same weights"
            )
        return
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"{source} is an adapter, not a model; merge it into its model (with peft: `merge_and_unload`) and name that folder"
        )
    packed = next(folder.glob("*.gguf"), None)
    if packed and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{source} holds quantized weights ({packed.name}); make a folder of safetensors of it: "
            f"`python -m tasks.models.gguf {packed} OUT` (docs/models.md)"
        )
    if not (folder / "config.json").exists():
        raise InputError(f"{source} is not a model folder: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = [file.name for suffix in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(suffix)]
        if pickled:
            raise InputError(
                f"{source} holds pickled weights only ({pickled[0]}), which could run code when loaded; "
                "convert them to safetensors"
            )
        raise InputError(f"{source} has no *.safetensors weights")
