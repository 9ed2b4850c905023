"""Tokenizers: one trained on the project's own text, or one that comes with a model."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import InputError
from tasks.core.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # one class, before and since transformers 5

# One piece is: a word with the space before it, one digit, a run of signs with the space before it, or one space.
# Digits stand alone because a model that adds digit by digit must see them so (Liu & Low 2023, "Goat").
PIECES = r" ?[\p{L}\p{M}']+|\p{N}| ?[^\s\p{L}\p{M}\p{N}']+|\s"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2): any text comes back exactly, and no merge crosses PIECES.

    vocab_size counts the 3 special tokens and the 256 bytes; the same texts give the same tokenizer.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def load_tokenizer(source: str | Path, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """A tokenizer folder, or a hub repository at a fixed commit. No code of the repository is run.

    A tokenizer without a pad token of its own gets one, unk or a new <pad>: padding with eos would hide eos from the loss, and
    the model would never learn to stop. With a new token len(tokenizer) can exceed the rows of the model's embedding.
    """
    name = str(source)
    folder = Path(name).is_dir()
    if not folder and not _is_hub_name(name):
        raise InputError(f"tokenizer {name}: no such folder, and not a hub name (owner/name)")
    if not folder and revision is None:
        raise InputError(f"tokenizer {name}: a hub name needs a revision; give the commit it should be pinned to")
    try:
        tokenizer = _from_folder(Path(name)) if folder else _from_hub(name, revision)
    except Exception as error:  # whatever the libraries raise for a folder that is no tokenizer, or for a hub out of reach
        if folder:
            raise InputError(f"{name} holds no tokenizer that can be loaded ({_first_line(error)})") from None
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(
            f"tokenizer {name} at {revision} is neither in the local cache nor reachable{offline}; "
            "download it to a folder and name the folder"
        ) from None
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {name} has no end-of-text token; a model could not learn to stop")
    pad_apart(tokenizer)
    tokenizer.init_kwargs.pop("local_files_only", None)  # would be saved, and tell apart folders made online and offline
    return tokenizer


def pad_apart(tokenizer: "PreTrainedTokenizerBase") -> None:
    """A pad token that is not end-of-text: a new one, unless the vocabulary has it."""
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        spare = tokenizer.unk_token if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id) else PAD
        tokenizer.add_special_tokens({"pad_token": spare})


def _from_folder(folder: Path) -> "PreTrainedTokenizerBase":
    """Most tokenizers are all in their tokenizer.json; looking up a class of their own would import torch, which takes 2 s."""
    config = folder / "tokenizer_config.json"
    if config.exists() and read_json(config).get("tokenizer_class") in GENERIC:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _from_hub(name: str, revision: str | None) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)


def _is_hub_name(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") == 1


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
