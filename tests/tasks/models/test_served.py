"""`mlflow models serve` loads a registered policy and answers with it; here without the HTTP in between."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from pandas import DataFrame

from flows.engine.promotion import PACKAGES, SCRIPT
from tasks.core.serving import save_served
from tasks.models.generate import greedy
from tasks.models.language import save_model
from tasks.models.text import decode, encode_prompts

PROMPTS = ["two apples", "12 pears and two apples"]
GREEDY = {"temperature": 0.0, "max_new_tokens": 6, "seed": 0}


@pytest.fixture
def served(model: Any, tokenizer: Any, tmp_path: Path) -> Any:
    save_model(model, tokenizer, tmp_path / "policy")
    example = ([{"prompt": PROMPTS[0]}], GREEDY, [{"completion": "pears"}])
    save_served(tmp_path / "served", SCRIPT, tmp_path / "policy", example, PACKAGES)
    return mlflow.pyfunc.load_model(str(tmp_path / "served"))


def test_a_served_policy_writes_what_it_writes_here(served: Any, model: Any, tokenizer: Any) -> None:
    answered = served.predict(DataFrame({"prompt": PROMPTS}), params=GREEDY)
    ids = greedy(model, tokenizer, encode_prompts(tokenizer, PROMPTS), 6)
    assert answered["completion"].tolist() == [decode(tokenizer, written) for written in ids]
    warm = GREEDY | {"temperature": 1.0}
    drawn = [served.predict(DataFrame({"prompt": PROMPTS}), params=warm | {"seed": seed}) for seed in (1, 1, 2)]
    assert drawn[0].equals(drawn[1])
    assert not drawn[0].equals(drawn[2])


def test_what_it_cannot_do_is_one_sentence(served: Any) -> None:
    with pytest.raises(MlflowException, match="`temperature` must be at least 0"):
        served.predict(DataFrame({"prompt": PROMPTS}), params=GREEDY | {"temperature": -1.0})
