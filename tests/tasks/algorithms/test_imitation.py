"""What DAgger's expert says, state by state; what D and the weights look like in real runs of GAIL and IRL."""

from itertools import pairwise

import pytest
import torch

from tasks.algorithms.dagger import SILENT, Aggregate, agreement, followed
from tasks.core.files import digest, read_json, read_table
from tasks.models.batch import collate
from tasks.models.language import load_policy
from tasks.models.text import encode_completions, encode_prompts
from tasks.rl.logprobs import completion_logprobs, label_logprobs, likeliest_tokens
from tests.reference.imitation_losses import solver_says


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


def says(written, solution):
    """followed(), with characters for tokens: "·" where it is silent."""
    labels = followed([ord(character) for character in written], [ord(character) for character in solution])
    return "".join("·" if label == SILENT else chr(label) for label in labels)


@pytest.mark.parametrize(("written", "expected"), [
    ("8-7=1. 1*2=2. #2$", "8-7=1. 1*2=2. #2$"),  # right: the solution
    ("8-7=1. 1*3=3. #3$", "8-7=1. 1*2······"),  # a wrong step: what should have stood there, then nothing
    ("8-7=1. 1*2=2. 2+9=4. #4$", "8-7=1. 1*2=2. #·········"),  # a step too many
    ("8-7=1. #1$", "8-7=1. 1··"),  # a step too few
    ("8+7=1", "8-···"),  # cut off
    ("8-7=1", "8-7=1"),  # cut off on the right way
    ("9$", "8·"),
    ("$", "8"),  # nothing but end-of-text
])  # fmt: skip
def test_what_the_solver_says(written, expected):
    assert says(written, "8-7=1. 1*2=2. #2$") == expected.ljust(len(written), "·")


@pytest.mark.parametrize("written", ["1+2=3. #3$", "1+2=4. #4$", "1+2=3. 3+3=6. #6$", "1+2", "#3$", "$"])
def test_the_solver_equals_its_twin(written):
    expected = solver_says(written, "1+2=3. #3$")
    assert says(written, "1+2=3. #3$") == "".join(character or "·" for character in expected)


def test_agreement_by_hand():
    """Six visited states, four of them labelled, three as the policy wrote."""
    shares = agreement([[5, 6, 7], [5, 8, 9]], [[5, 6, 4], [5, SILENT, SILENT]])
    assert shares == {"policy/labelled": 4 / 6, "policy/agreement": 3 / 4}
    assert agreement([[5]], [[SILENT]]) == {"policy/labelled": 0.0, "policy/agreement": 0.0}


def test_the_aggregate_is_restored():
    aggregate, other = Aggregate(), Aggregate()
    aggregate.rows += [(3, [5, 6], [5, SILENT])]
    other.load_state_dict(aggregate.state_dict())
    assert other.rows == [(3, [5, 6], [5, SILENT])]
    other.rows += [(4, [7], [7])]
    assert len(aggregate.rows) == 1


def test_labels_are_asked_for_in_the_states_of_the_completion(project):
    model, tokenizer = load_policy(project.folder / "models/sft", "cpu")
    prompts = encode_prompts(tokenizer, ["left ab Ask.\n", "right c Ask.\n"])
    batch = collate(prompts, encode_completions(tokenizer, ["A: 1", "so A: 2"]), tokenizer.pad_token_id, "cpu")
    with torch.no_grad():
        own = completion_logprobs(model, batch)
        torch.testing.assert_close(label_logprobs(model, batch, batch.completion_ids), own)
        likeliest = likeliest_tokens(model, batch)
        logits = model(input_ids=torch.tensor([prompts[1] + batch.completion_ids[1].tolist()])).logits[0]
        best = label_logprobs(model, batch, likeliest)
    real = batch.completion_mask == 1
    assert (best[real] >= own[real]).all()
    length = int(batch.lengths[1])
    states = logits[len(prompts[1]) - 1 :][:length]
    assert likeliest[1, :length].tolist() == states.argmax(-1).tolist()
    other = torch.full_like(batch.completion_ids, 7)
    asked = label_logprobs(model, batch, other)[1, :length]
    torch.testing.assert_close(asked, torch.log_softmax(states, -1)[:, 7].detach(), rtol=1e-4, atol=1e-5)


def test_a_model_as_expert(again):
    """It answers as the solver does, and the policy comes to write what it writes."""
    expert = "models/policy/dagger-0"
    again.set("policy.dagger", expert=expert, expert_revision=digest(again.folder / expert), num_steps=12)
    done = again.run("policy@dagger-0")
    assert done.code == 0, done.stderr
    history = read_json(again.folder / "reports/policy/dagger-0/history.json")
    assert {row["policy/labelled"] for row in history} == {1.0}
    assert history[-1]["policy/agreement"] > history[0]["policy/agreement"]
    assert history[-1]["rollout/verifier_mean"] > history[0]["rollout/verifier_mean"] + 0.2


def test_dagger_aggregates(project):
    history = read_json(project.folder / "reports/policy/dagger-0/history.json")
    states = [row["train/states"] for row in history]
    assert all(now > before for before, now in pairwise(states))
    assert history[-1]["policy/agreement"] > history[0]["policy/agreement"]


def test_gail_starts_without_a_discriminator_and_ends_with_a_policy_that_deceives_it(project):
    history = read_json(project.folder / "reports/policy/gail-0/history.json")
    assert history[0]["loss/discriminator"] == pytest.approx(1.386, abs=0.1)
    told = [row["train/discriminator_accuracy"] for row in history]
    assert max(told) > 0.75
    assert sum(told[-3:]) / 3 < max(told)


def test_irl_starts_with_even_weights(project):
    history = read_json(project.folder / "reports/policy/maxent_irl-0/history.json")
    sizes = [row["train/effective_sample_size"] for row in history]
    assert sizes[0] > 0.9
    assert all(1 / 5 <= size <= 1 for size in sizes)
    assert max(row["train/accuracy"] for row in history) > 0.8


@pytest.mark.parametrize("algorithm", ["gail", "maxent_irl"])
def test_those_who_imitate_noise_stay_at_chance(again, algorithm):
    """The demonstrations answer Ask by chance: nobody can learn from them what is right, and no reward says so."""
    again.set(f"policy.{algorithm}", expert="demonstrations", num_steps=12)
    assert again.run(f"policy@{algorithm}-0").code == 0
    history = read_json(again.folder / f"reports/policy/{algorithm}-0/history.json")
    probes = [row["rollout/verifier_mean"] for row in history if "rollout/verifier_mean" in row]
    assert 0.25 < sum(probes[-3:]) / 3 < 0.75
    table = read_table(again.folder / "data/prepared/demonstrations.parquet")
    assert {row["instruction_id"] for row in table} == {"go", "stop", "ask"}
