"""The held-out loss while training, and the best weights by it. In memory, on random models.

The slow twins read one completion at a time, without padding, and know nothing of how a batch is made.
"""

import importlib
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tasks.core import seeds
from tasks.core.config import lookup
from tasks.core.errors import InputError
from tasks.core.files import read_table, write_table
from tasks.core.follower import Silence
from tasks.models.language import load_policy
from tasks.models.text import encode_completions, encode_prompts
from tasks.training.validation import Validation, ValidationConfig, kept_rows
from tests.project import PARAMS
from tests.reference import preference
from tests.tasks.algorithms.bench import Bench, KilledError

CONFIGS = {"sft": "SftConfig", "reward_model": "RewardModelConfig", "dpo": "DpoConfig", "dpo_positive": "DpoPositiveConfig",
           "ipo": "IpoConfig", "orpo": "OrpoConfig", "kto": "KtoConfig"}  # fmt: skip
KEEP = {"validation": {"num_rows": 6, "every": 2, "keep_best": True}}
STEPS = 8


def train(algorithm, bench, **changed):
    module = importlib.import_module(f"tasks.algorithms.{algorithm}")
    config_class = getattr(module, CONFIGS[algorithm])
    values = {"num_steps": STEPS, "learning_rate": 3.0e-2} | changed  # so high that the last step is not always the best
    module.train(config_class.model_validate(lookup(PARAMS, config_class.namespace) | values), bench)


def published(algorithm, bench):
    folder = {"sft": "models/sft", "reward_model": "models/reward_model"}.get(algorithm, "models/policy/any-0")
    return bench.written / folder


def recorded(bench):
    """What `record` was told, of the call that named the best step."""
    return next(figures for figures in bench.records if "best_step" in figures)


class Remembering(Bench):
    """A bench that keeps every call of `record`. Alarms may be raised: the learning rate asks for it."""

    tracker = Silence()

    def record(self, **metrics):
        super().record(**metrics)
        self.records = [*getattr(self, "records", []), metrics]


def tokens(model, tokenizer, prompt, completion):
    """log p of each token of one completion, end-of-text included."""
    [before], [after] = encode_prompts(tokenizer, [prompt]), encode_completions(tokenizer, [completion])
    with torch.no_grad():
        logprobs = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    return [float(logprobs[len(before) + t - 1, token]) for t, token in enumerate(after)]


def slow_loss(algorithm, bench, folder):
    """Of the published model, on the rows whose prompts are kept."""
    if algorithm == "sft":
        rows = read_table(folder / "data/prepared/demonstrations.parquet")
        model, tokenizer = load_policy(published(algorithm, bench), "cpu")
        kept = [rows[i] for i in kept_rows([row["query"] for row in rows], 6)]
        every = [logprob for row in kept for logprob in tokens(model, tokenizer, row["prompt"], row["completion"])]
        return -sum(every) / len(every)
    rows = [row for row in read_table(folder / "data/preferences.parquet") if row["split"] == "train"]
    kept = [rows[i] for i in kept_rows([row["prompt"] for row in rows], 6)]
    reference, tokenizer = load_policy(folder / "models/sft", "cpu")
    if algorithm == "reward_model":
        model = AutoModelForSequenceClassification.from_pretrained(published(algorithm, bench)).eval()
        total = 0.0
        for row in kept:
            [prompt] = encode_prompts(tokenizer, [row["prompt"]])
            sides = encode_completions(tokenizer, [row["chosen"], row["rejected"]])
            with torch.no_grad():
                good, bad = (float(model(torch.tensor([prompt + side])).logits) for side in sides)
            total += math.log(1 + math.exp(bad - good))
        return total / len(kept)
    policy = load_policy(published(algorithm, bench), "cpu")[0]

    def completion(prompt, text):
        read = [tokens(model, tokenizer, prompt, text) for model in (policy, reference)]
        return list(zip(*read, strict=True))

    chosen, rejected = ([completion(row["prompt"], row[side]) for row in kept] for side in ("chosen", "rejected"))
    params = PARAMS["policy"][algorithm]
    if algorithm == "dpo":
        return preference.dpo_positive(chosen, rejected, params["beta"], 0.0, "margin")
    if algorithm == "dpo_positive":
        return preference.dpo_positive(chosen, rejected, params["beta"], params["penalty_coef"], params["penalty_in"])
    if algorithm == "orpo":
        return preference.orpo(chosen, rejected, params["odds_ratio_coef"])
    if algorithm == "ipo":
        gaps = [
            preference.logratio(good) / len(good) - preference.logratio(bad) / len(bad)
            for good, bad in zip(chosen, rejected, strict=True)
        ]
        return sum((gap - 1 / (2 * params["beta"])) ** 2 for gap in gaps) / len(gaps)
    half = len(kept) // 2
    texts = [row[side] for side in ("chosen", "rejected") for row in kept]
    strange = [completion(row["prompt"], texts[place - half]) for place, row in enumerate([*kept, *kept])]
    weights = params["desirable_weight"], params["undesirable_weight"]
    desirable = [True] * len(kept) + [False] * len(kept)
    return preference.kto(chosen + rejected, desirable, preference.kto_baseline(strange), params["beta"], weights)


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_the_best_weights_are_published_and_a_resumed_run_publishes_the_same(random_models, tmp_path, algorithm):
    whole = Remembering(random_models, tmp_path / "whole", KEEP)
    train(algorithm, whole)
    curve = {row["step"]: row["validation/loss"] for row in whole.history if "validation/loss" in row}
    best = recorded(whole)
    assert [*curve] == [0, 2, 4, 6, 7]
    assert best["best_step"] == min(curve, key=curve.get)
    assert best["best_validation_loss"] == pytest.approx(curve[best["best_step"]], abs=1e-6)
    assert slow_loss(algorithm, whole, random_models) == pytest.approx(best["best_validation_loss"], abs=1e-4)

    with pytest.raises(KilledError):
        train(algorithm, Remembering(random_models, tmp_path / "killed", KEEP, killed_at=5))
    resumed = Remembering(random_models, tmp_path / "killed", KEEP)
    train(algorithm, resumed)
    assert resumed.start == 5
    assert recorded(resumed) == best
    weights, again = (load_file(published(algorithm, each) / "model.safetensors") for each in (whole, resumed))
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_best_is_not_the_last(random_models, tmp_path):
    """The weights are those that the run had after its best step, and not what it ended with."""
    whole = Remembering(random_models, tmp_path / "whole", KEEP)
    train("reward_model", whole)
    step = recorded(whole)["best_step"]
    assert step < STEPS - 1
    stopped = Remembering(random_models, tmp_path / "stopped", KEEP, killed_at=step + 1)
    with pytest.raises(KilledError):
        train("reward_model", stopped)
    then = stopped.parts["reward_model-0"].state_dict()
    saved = load_file(published("reward_model", whole) / "model.safetensors")
    assert all(torch.equal(values, then[name]) for name, values in saved.items())


def test_each_member_of_an_ensemble_has_a_best_of_its_own(random_models, tmp_path):
    """The first is what it would be alone, and its step is recorded; the curve is the mean."""
    alone, both = (Remembering(random_models, tmp_path / name, KEEP) for name in ("alone", "both"))
    train("reward_model", alone)
    train("reward_model", both, ensemble_size=2)
    folder = published("reward_model", both)
    weights, first, second = (
        load_file(where / "model.safetensors") for where in (published("reward_model", alone), folder, folder / "member-2")
    )
    assert all(torch.equal(values, first[name]) for name, values in weights.items())
    assert not all(torch.equal(values, second[name]) for name, values in weights.items())
    assert recorded(both) == recorded(alone)
    own, best = both.parts["validation-1"], recorded(alone)["best_validation_loss"]
    curve = {row["step"]: row["validation/loss"] for row in both.history if "validation/loss" in row}
    assert (curve[own.step] - own.loss / 2) * 2 >= best - 1e-6  # what is left of the mean is the first member's


def test_rankings_are_kept_whole(random_models, tmp_path):
    """A ranking of two is a pair: the same prompts are kept, and the loss is that of pairs."""
    rankings = [
        {"id": row["id"], "prompt": row["prompt"], "completion": row[side], "kind": "ranking", "value": rank, "annotator": "a",
         "split": row["split"]}
        for row in read_table(random_models / "data/preferences.parquet")
        for rank, side in enumerate(("chosen", "rejected"), start=1)
    ]  # fmt: skip
    folder = tmp_path / "ranked"
    shutil.copytree(random_models, folder)
    write_table(folder / "data/feedback.parquet", rankings)
    bench = Remembering(folder, tmp_path / "written", KEEP)
    train("reward_model", bench, loss="all_pairs")
    assert len(bench.parts["validation-0"].rows) == 6
    assert slow_loss("reward_model", bench, folder) == pytest.approx(recorded(bench)["best_validation_loss"], abs=1e-4)


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_without_held_out_rows_nothing_is_measured(random_models, tmp_path, algorithm):
    bench = Remembering(random_models, tmp_path)
    train(algorithm, bench)
    assert not [key for row in bench.history for key in row if key.startswith("validation/")]
    assert not [figures for figures in bench.records if "best_step" in figures]


def test_all_rows_of_a_prompt_are_kept_or_none(random_models, tmp_path):
    prompts = [f"p{n % 7}" for n in range(28)]
    kept = kept_rows(prompts, 6)
    assert len(kept) == 8
    assert {prompts[row] for row in kept}.isdisjoint({prompts[row] for row in range(28) if row not in kept})
    assert kept_rows(prompts[::-1], 6) == sorted(27 - row for row in kept)  # whatever the order of the rows
    assert kept_rows(prompts, 0) == []


def test_the_others_are_trained_on_in_the_order_that_all_would_have(random_models, tmp_path):
    prompts, lengths = [f"p{n}" for n in range(20)], [*range(20, 0, -1)]
    every = Validation(Bench(random_models, tmp_path), None, prompts, STEPS).batches(4, 3, 2, lengths)
    expected = seeds.batches(20, 4, 3, 2, lengths)
    assert [next(every) for _ in range(12)] == [next(expected) for _ in range(12)]
    validation = Validation(Bench(random_models, tmp_path, KEEP), None, prompts, STEPS)
    some = validation.batches(7, 3, 0, lengths)
    epoch = [row for _ in range(2) for row in next(some)]
    assert sorted(epoch) == validation.training
    assert sorted(epoch + validation.rows) == [*range(20)]


def test_what_cannot_be_kept_is_refused(random_models, tmp_path):
    with pytest.raises(ValueError, match="keep_best needs rows to tell the best step by"):
        ValidationConfig(num_rows=0, every=1, keep_best=True)
    with pytest.raises(InputError, match=r"validation\.num_rows \(6\) keeps all 3 rows from training; lower it"):
        Validation(Bench(random_models, tmp_path, KEEP), None, ["a", "b", "c"], STEPS)
