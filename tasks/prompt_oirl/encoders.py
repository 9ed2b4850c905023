"""Texts as fixed vectors for the learners of r̂.

    features(text) = [ mean hidden state | mean hidden state of the last sentence | TF-IDF | surface ]

Each block is centred and scaled to a mean squared norm of 1, then weighted. The hidden states are those of a frozen
transformer, a sentence encoder or the policy itself, after its first `layers` layers: whether a prompt works hangs more on the
wording of a query than on its meaning, and early layers are better at that here than the last (they are also cheaper).
`tfidf` needs no model at all.

Vectors are cached by content, in .scratch/embeddings: a text is embedded once per model and depth. A model in service
(tasks/prompt_oirl/served.py) writes nothing.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import digest
from tasks.data.splits import words
from tasks.models.external import pinned
from tasks.prompt_oirl.surface import last_sentence, mask_numbers, surface

Array = NDArray[np.float32]
State = dict[str, NDArray[Any]]

TFIDF_SIZE = 200
WEIGHTS = {"mean": 1.0, "last_sentence": 0.7, "tfidf": 0.7, "surface": 0.8}
TOKENS_AT_ONCE = 1024
CACHE = Path(".scratch/embeddings")


class EncoderConfig(Config):
    """A file of data/encoders: a model outside the repository, or none; layers: so many of its first, null for all."""

    namespace = "encoder"

    source: str | None
    revision: str | None
    layers: PositiveInt | None


def describe(path: Path) -> EncoderConfig:
    """A model folder as it is, or what a file of data/encoders says."""
    if path.suffix != ".yaml":
        return EncoderConfig(source=str(path), revision=None, layers=None)
    config = EncoderConfig.load(path)
    source = pinned(config.source, config.revision, config.namespace, "source", str(path)) if config.source else None
    return config.model_copy(update={"source": source})


class Reads(Protocol):
    """What reads queries through a window: HiddenStates, or the model of tasks/prompt_oirl/finetune.py."""

    window: int  # tokens

    def unread(self, queries: Sequence[str]) -> list[int]: ...


def lengths(model: "HiddenStates | None", texts: Sequence[str]) -> list[int]:
    """Tokens of each text to the encoder; words and signs where there is none."""
    return model.lengths(texts) if model else [len(words(text)) for text in texts]


def refuse_too_long(encoder: Reads, queries: Sequence[str], query_ids: dict[str, str]) -> None:
    """The encoder has seen no position beyond its window."""
    for query, unread in zip(queries, encoder.unread(queries), strict=True):
        if unread:
            raise InputError(
                f"the prompt log: query {query_ids[query]} is {encoder.window + unread} tokens, the encoder reads "
                f"{encoder.window}; leave it out, or bring an encoder that reads more (base_model.max_position_embeddings)"
            )


class HiddenStates:
    """The first layers of a transformer from a Hugging Face folder; safetensors only.

    In bfloat16 on a CPU that computes with it: for features as good as float32, two to five times as fast. A CPU without
    emulates it, seven times as slow as float32, which is then used instead.
    """

    def __init__(self, folder: Path, layers: int | None = None, remembers: bool = True):
        """layers: so many of its first, None for all. remembers: keeps what it has embedded in .scratch."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        if not (folder / "config.json").exists() or not any(folder.glob("*.safetensors")):
            raise InputError(f"{folder} is not an encoder: it needs config.json and *.safetensors")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False, dtype="float32").eval()
        stack = model.encoder.layer if hasattr(model, "encoder") else model.layers
        if layers is None:
            layers = len(stack)
        elif not 0 < layers <= len(stack):
            raise InputError(f"{folder} has {len(stack)} layers; `encoder.layers` must be among 1 to {len(stack)}")
        del stack[layers:]
        model.config.num_hidden_layers = layers
        dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
        self.model = model.to(dtype)
        self.size = int(model.config.hidden_size)
        self.window = int(model.config.max_position_embeddings)
        self.remembers = remembers
        self.identity = f"{digest(folder)[:12]}-{layers}-{str(dtype).removeprefix('torch.')}"

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]

    def unread(self, texts: Sequence[str]) -> list[int]:
        """How many tokens at the end of each text lie beyond the window."""
        return [max(0, length - self.window) for length in self.lengths(texts)]

    def embed(self, texts: Sequence[str]) -> Array:
        """Mean of all hidden states and of those of the last sentence: (texts, 2, size). Texts of like length go together."""
        import torch

        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.window, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        order = sorted(range(len(texts)), key=lambda index: len(ids[index]))
        vectors = np.zeros((len(texts), 2, self.size), dtype=np.float32)
        while order:
            longest = len(ids[order[min(len(order) - 1, TOKENS_AT_ONCE // max(1, len(ids[order[0]])))]])
            batch, order = order[: (count := max(1, TOKENS_AT_ONCE // longest))], order[count:]
            longest = max(len(ids[index]) for index in batch)
            tokens = torch.zeros(len(batch), longest, dtype=torch.long)
            pools = torch.zeros(len(batch), 2, longest)
            for row, index in enumerate(batch):
                tokens[row, : len(ids[index])] = torch.tensor(ids[index])
                pools[row, 0, : len(ids[index])] = 1
                begin = last_sentence(texts[index])
                inside = [place for place, (start, end) in enumerate(offsets[index]) if end > start >= begin]
                pools[row, 1, inside or range(len(ids[index]))] = 1
            with torch.inference_mode():
                mask = pools[:, 0].long()
                states = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
                vectors[batch] = (pools @ states / pools.sum(2, keepdim=True)).numpy()
        return vectors


def cached(model: HiddenStates, texts: Sequence[str]) -> Array:
    """The vectors of the texts, (texts, 2, size); those never seen before are computed and kept, if the model remembers."""
    if not model.remembers:
        return model.embed(texts)
    file = CACHE / f"{model.identity}.npz"
    names, vectors = np.zeros(0, dtype="S32"), np.zeros((0, 2, model.size), dtype=np.float32)
    if file.exists():
        with np.load(file, allow_pickle=False) as kept:
            names, vectors = kept["names"], kept["vectors"]
    known = {name: place for place, name in enumerate(names.tolist())}
    keys = [hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().encode() for text in texts]
    fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if fresh:
        names = np.concatenate([names, np.array(list(fresh), dtype="S32")])
        vectors = np.concatenate([vectors, model.embed(list(fresh.values()))])
        known |= {key: len(known) + place for place, key in enumerate(fresh)}
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.stem + ".partial.npz")
        np.savez(partial, names=names, vectors=vectors)
        partial.replace(file)
    return np.asarray(vectors[[known[key] for key in keys]])


class Encoder:
    """Features of queries, fitted on the training queries alone: what TF-IDF counts, and where each block has its centre."""

    def __init__(self, model: HiddenStates | None, state: State):
        self.model, self.state = model, state
        self._tfidf = _vectorizer(state)

    @classmethod
    def fit(cls, model: HiddenStates | None, queries: Sequence[str]) -> "Encoder":
        encoder = cls(model, _fit_tfidf(queries))
        for name, block in encoder._blocks(queries).items():
            spread = block.std(axis=0) + 1e-6 if name == "surface" else np.ones(block.shape[1])
            centre = block.mean(axis=0)
            norm = np.sqrt((((block - centre) / spread) ** 2).sum(axis=1).mean()) + 1e-9
            encoder.state |= {f"{name}.centre": centre, f"{name}.scale": WEIGHTS[name] / norm / spread}
        return encoder

    def encode(self, queries: Sequence[str]) -> Array:
        """(queries, features)"""
        blocks = self._blocks(queries).items()
        scaled = [(block - self.state[f"{name}.centre"]) * self.state[f"{name}.scale"] for name, block in blocks]
        return np.concatenate(scaled, axis=1).astype(np.float32)

    def _blocks(self, queries: Sequence[str]) -> dict[str, NDArray[Any]]:
        blocks: dict[str, NDArray[Any]] = {}
        if self.model:
            states = cached(self.model, queries)
            blocks = {"mean": states[:, 0], "last_sentence": states[:, 1]}
        counts = self._tfidf.transform([mask_numbers(query) for query in queries])
        return blocks | {"tfidf": counts @ self.state["tfidf.axes"], "surface": surface(queries)}


def _fit_tfidf(queries: Sequence[str]) -> State:
    """Words and pairs of words, numbers masked; their leading axes (latent semantic analysis)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(ngram_range=(1, 2), min_df=min(3, len(queries)), sublinear_tf=True, token_pattern=r"[\w#]+")
    try:
        counts = counter.fit_transform([mask_numbers(query) for query in queries])
    except ValueError:
        raise InputError("the prompt log: its training queries share no words; bring more queries") from None
    words = sorted(counter.vocabulary_, key=counter.vocabulary_.get)
    axes = TruncatedSVD(min(TFIDF_SIZE, len(words) - 1, len(queries) - 1), random_state=0).fit(counts).components_.T
    return {"tfidf.words": np.array(words, dtype=np.str_), "tfidf.idf": counter.idf_, "tfidf.axes": axes}


def _vectorizer(state: State) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = state["tfidf.words"].tolist()
    counter = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[\w#]+", vocabulary=words)
    counter.idf_ = state["tfidf.idf"]
    return counter
