"""The trained tokenizer gives back any text; a loaded one is safe to pad with, or refused in one sentence."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import InputError
from tasks.core.files import digest
from tasks.models.text import decode, encode_completion
from tasks.models.tokenizer import load_tokenizer, train_tokenizer

TEXTS = [f"Tom has {n} apples. Ann's {n + 1} pears cost {n * 7}+{n}={n * 8}." for n in range(50)]
TOKENIZER = train_tokenizer(TEXTS, 400)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert decode(TOKENIZER, encode_completion(TOKENIZER, text)) == text


@pytest.mark.parametrize("text", ["", " ", "a  b\n\n\tc ", "你好 😀 naïve", "</s><pad>", "½ ٣ ²", "é", "'s '' \r\n"])
def test_odd_text_comes_back(text: str) -> None:
    assert decode(TOKENIZER, encode_completion(TOKENIZER, text)) == text


def test_digits_stand_alone_and_words_keep_their_space() -> None:
    pieces = TOKENIZER.tokenize("Tom has 120 apples.")
    assert pieces == ["Tom", "Ġhas", "Ġ", "1", "2", "0", "Ġapples", "."]


def test_special_tokens_are_three_and_distinct() -> None:
    ids = [TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id]
    assert ids == [0, 1, 2]
    assert len(TOKENIZER) <= 400


def test_the_same_texts_give_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_tokenizer(TEXTS, 400).save_pretrained(tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


@pytest.mark.parametrize("offline", ["0", "1"])
def test_what_is_saved_does_not_tell_whether_the_hub_was_in_reach(offline: str, tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    code = (
        "import sys; from tasks.models.tokenizer import load_tokenizer as load; load(sys.argv[1]).save_pretrained(sys.argv[1])"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": offline}
    subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=True)
    assert "local_files_only" not in (tmp_path / "tokenizer_config.json").read_text()


def test_a_folder_loads_as_it_was_saved(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert encode_completion(loaded, TEXTS[0]) == encode_completion(TOKENIZER, TEXTS[0])


@pytest.mark.parametrize("pad", [None, "</s>"])
def test_padding_is_never_end_of_text(pad: str | None, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 400)
    tokenizer.pad_token = pad
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token == "<pad>"
    assert loaded.pad_token_id not in (None, loaded.eos_token_id)


def test_a_pretrained_tokenizer_pads_with_unk(shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "models/stories260K")
    assert (tokenizer.pad_token, len(tokenizer)) == ("<unk>", 512)
    text = "Tom's 12 apples\n\n😀  cost 你好."
    assert decode(tokenizer, encode_completion(tokenizer, text)) == text


def refused(*arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        load_tokenizer(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such folder, and not a hub name" in refused(tmp_path / "missing")
    assert "holds no tokenizer that can be loaded" in refused(tmp_path)
    assert "needs a revision" in refused("owner/name")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sentence = refused("owner/name", "0" * 40)
    assert "neither in the local cache nor reachable (HF_HUB_OFFLINE is set); download it to a folder" in sentence


def test_a_tokenizer_that_cannot_end_is_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 400)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    assert "no end-of-text token" in refused(tmp_path)


def test_padding_is_never_end_of_text_even_where_unk_is(tmp_path: Path) -> None:
    """GPT-2 has one control token for everything."""
    tokenizer = train_tokenizer(TEXTS, 400)
    tokenizer.add_special_tokens({"pad_token": "</s>", "unk_token": "</s>", "bos_token": "</s>"})
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token_id not in (None, loaded.eos_token_id)
