"""Frozen transformers as encoders: what pads changes nothing, depth is chosen, and a text is embedded once."""

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.models.language import build_model, save_model
from tasks.models.tokenizer import train_tokenizer
from tasks.prompt_oirl import encoders
from tasks.prompt_oirl.encoders import Encoder, HiddenStates, cached, refuse_too_long
from tasks.prompt_oirl.selector import Selector, fit
from tests.tasks.prompt_oirl.test_selector import Answers, rows_of

TEXTS = ["Ann has 2 apples. How many are left?", "Bob sings.", "Cleo has 31 pears and eats 4. She buys 7. How many are there?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer(TEXTS, 300)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    save_model(build_model(tokenizer, 0, max_position_embeddings=96, initializer_range=0.2, **shape), tokenizer, path)
    return path


@pytest.fixture(autouse=True)
def _cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "CACHE", tmp_path / "cache")


def test_a_text_has_the_same_vectors_alone_and_in_a_batch(folder):
    model = HiddenStates(folder, 2)
    together = model.embed(TEXTS)
    alone = np.concatenate([model.embed([text]) for text in TEXTS])
    assert together.shape == (3, 2, 32)
    np.testing.assert_allclose(together, alone, atol=0.03)  # bfloat16


def test_a_single_sentence_is_its_own_last_sentence(folder):
    vectors = HiddenStates(folder, 2).embed(TEXTS)
    assert not np.allclose(vectors[0, 0], vectors[0, 1], atol=0.05)
    np.testing.assert_allclose(vectors[1, 0], vectors[1, 1], atol=0.5)


def test_depth_is_chosen_and_what_is_too_deep_refused(folder):
    assert not np.allclose(HiddenStates(folder, 1).embed(TEXTS), HiddenStates(folder, 3).embed(TEXTS), atol=0.05)
    np.testing.assert_array_equal(HiddenStates(folder).embed(TEXTS), HiddenStates(folder, 3).embed(TEXTS))
    with pytest.raises(InputError, match="has 3 layers"):
        HiddenStates(folder, 4)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not an encoder"):
        HiddenStates(tmp_path, 1)


def test_a_text_is_embedded_once(folder, monkeypatch):
    model, asked = HiddenStates(folder, 2), []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda texts: (asked.extend(texts), embed(texts))[1])
    first = cached(model, TEXTS[:2])
    again = cached(model, [TEXTS[1], TEXTS[2], TEXTS[1]])
    assert asked == TEXTS
    np.testing.assert_array_equal(again[0], first[1])
    np.testing.assert_array_equal(again[0], again[2])


def test_blocks_are_centred_and_weighted(folder):
    queries = [row["query"] for row in rows_of(60)[::2]]
    features = Encoder.fit(HiddenStates(folder, 2), queries).encode(queries)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    assert (features**2).sum(axis=1).mean() == pytest.approx(1.0 + 0.7**2 + 0.7**2 + 0.8**2, rel=1e-3)


def test_a_selector_brings_its_encoder_along(folder, tmp_path):
    fitted = fit(Answers.of(rows_of(60)), HiddenStates(folder, 2), "kernel", seed=0)
    fitted.save(tmp_path / "model")
    queries = [row["query"] for row in rows_of(10, seed=4)]
    np.testing.assert_array_equal(Selector.load(tmp_path / "model").probabilities(queries), fitted.probabilities(queries))


def test_a_selector_in_service_keeps_nothing_and_tells_what_it_did_not_read(folder, tmp_path):
    fit(Answers.of(rows_of(60)), HiddenStates(folder, 2), "kernel", seed=0).save(tmp_path / "model")
    kept = {file: file.stat().st_mtime_ns for file in encoders.CACHE.iterdir()}
    served = Selector.load(tmp_path / "model")
    assert served.probabilities(["A query that nobody has asked."]).shape == (1, 2)
    assert {file: file.stat().st_mtime_ns for file in encoders.CACHE.iterdir()} == kept
    long = "apples " * 200
    beyond = len(served.encoder.model.tokenizer(long)["input_ids"]) - 96
    assert served.unread(["Bob sings.", long]) == [0, beyond]
    assert beyond > 0


def test_a_query_beyond_the_window_is_refused_before_a_fit(folder):
    with pytest.raises(InputError, match=r"query q7 is \d+ tokens, the encoder reads 96; leave it out"):
        refuse_too_long(HiddenStates(folder, 1), ["Bob sings.", "apples " * 200], {"Bob sings.": "q6", "apples " * 200: "q7"})
