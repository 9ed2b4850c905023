"""What ILQL saves is exactly the policy it decodes with, π · exp(β (Q − V)), as a model that knows nothing of Q or V."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from tasks.algorithms.ilql import QHead, check_foldable, perturbed
from tasks.core.errors import InputError
from tasks.core.files import read_json
from tasks.models.batch import collate
from tests.reference.ilql import decoded_distribution

VOCABULARY, HIDDEN = 23, 16
SPECIAL = {"vocab_size": VOCABULARY, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2}
SHAPE = SPECIAL | {
    "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
GPT2 = SPECIAL | {"n_embd": HIDDEN, "n_layer": 1, "n_head": 2, "n_positions": 32}
BATCH = collate([[1, 5, 6], [1, 7]], [[8, 9, 2], [10, 2]], 0, "cpu")


def model(name):
    torch.manual_seed(0)
    match name:
        case "llama, tied":
            return LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)).eval()
        case "llama, untied":
            return LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False)).eval()
        case "gpt2":
            return GPT2LMHeadModel(GPT2Config(**GPT2)).eval()
        case "phi, output bias":
            phi = PhiForCausalLM(PhiConfig(**SHAPE)).eval()
            torch.nn.init.normal_(phi.lm_head.bias)
            return phi
        case "granite, scaled logits":
            return GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0)).eval()
        case "gemma2, capped logits":
            return Gemma2ForCausalLM(
                Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8, final_logit_softcapping=1.0)
            ).eval()


def q_head():
    head = QHead(HIDDEN, VOCABULARY, "cpu")
    for number, parameter in enumerate(head.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    return head


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama, tied", "llama, untied", "gpt2", "phi, output bias"])
def test_the_saved_model_is_the_decoded_policy(name, tmp_path):
    policy, head, beta = model(name), q_head(), 0.7
    ids = torch.tensor([[1, 5, 6, 8, 9]])
    before = policy(ids, output_hidden_states=True)
    check_foldable(policy, BATCH)
    perturbed(policy, head, beta).save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    after = torch.softmax(saved(ids).logits[0].double(), dim=-1)
    for t in range(ids.shape[1]):
        hidden, value = before.hidden_states[-1][0, t], 3.0 - t  # any V: it is the same for every token
        expected = decoded_distribution(before.logits[0, t], hidden, head.advantage.weight, head.state.weight[0], value, beta)
        assert after[t].tolist() == pytest.approx(expected, abs=1e-5)
    assert (after - torch.softmax(before.logits[0].double(), dim=-1)).abs().max() > 0.05


@torch.no_grad()
def test_the_policy_itself_stays_as_it_is():
    policy = model("llama, tied")
    weights = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    decoded = perturbed(policy, q_head(), 1.0)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in policy.state_dict().items())
    assert policy.config.tie_word_embeddings
    assert torch.equal(decoded.get_input_embeddings().weight, policy.get_input_embeddings().weight)
    assert torch.equal(perturbed(policy, q_head(), 0.0).get_output_embeddings().weight, policy.lm_head.weight)


@pytest.mark.parametrize("name", ["granite, scaled logits", "gemma2, capped logits"])
def test_a_model_whose_logits_are_not_its_output_layer_is_refused(name):
    with pytest.raises(InputError, match="does not take its logits straight from its output layer"):
        check_foldable(model(name), BATCH)


def test_q_is_zero_at_first():
    assert QHead(HIDDEN, VOCABULARY, "cpu")(torch.randn(2, 3, HIDDEN)).eq(0).all()


def test_what_is_saved_is_untied_and_was_learned(project):
    folder = project.folder / "models/policy/ilql-0"
    weights = load_file(folder / "model.safetensors")
    assert read_json(folder / "config.json")["tie_word_embeddings"] is False
    assert (weights["lm_head.weight"] - weights["model.embed_tokens.weight"]).abs().max() > 0.1


def test_the_values_say_something_of_what_comes(project):
    history = read_json(project.folder / "reports/policy/ilql-0/history.json")
    q_loss, explained = ([row[key] for row in history] for key in ("loss/q", "value/explained_variance"))
    assert sum(q_loss[-5:]) < 0.8 * sum(q_loss[:5])
    assert explained[0] == 0
    assert sum(explained[-5:]) / 5 > 0.05
    assert history[0]["value/advantage_std"] == 0
    assert history[-1]["value/advantage_std"] > 0.1


def test_without_beta_the_policy_is_the_clone(project, tmp_path):
    """β = 0 decodes with π: its output layer is still the input embeddings, number for number."""
    again = project.copy(tmp_path / "project")
    again.set("policy.ilql", beta=0.0, num_steps=2)
    assert again.run("policy@ilql-0").code == 0
    weights = load_file(again.folder / "models/policy/ilql-0/model.safetensors")
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
