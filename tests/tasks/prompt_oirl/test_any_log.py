"""Any log of the released form goes through the same commands, untuned: the gate, the fit, the experiments, the page."""

import hashlib
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core.files import Row, read_json, read_table, write_table
from tests.processes import REPO, Nursery
from tests.project import PARAMS, write_params

STAGES = ["tasks.data.validate prompt_log", "tasks.prompt_oirl.study", "tasks.prompt_oirl.fit", "tasks.report.prompt_oirl.page"]
NAMES = ["Ann", "Bob", "Cleo", "Dan", "Eve"]
PLACES = ["attic", "barn", "cellar", "den", "field", "garden", "hall", "kitchen", "lake", "museum", "office", "park"]


def log(prompts: list[str], calls: dict[str, list[str]], columns: list[str]) -> list[Row]:
    """As released: several models and data sets in one file. calls: split -> prompts that were asked of its questions.

    The first prompt suits sums and the others suit shares; each fails in one of ten.
    """
    chance, rows = random.Random(0), []
    for split, asked in calls.items():
        for number in range(60 if split == "train" else 30):
            name, place, count = chance.choice(NAMES), chance.choice(PLACES), chance.randint(2, 99)
            sums = chance.random() < 0.5
            ask = "How many are there in total?" if sums else "How many does each child get?"
            query = f"{name} has {count} boxes and {number} pears in the {place} of the {chance.choice(PLACES)}. {ask}"
            for prompt in asked:
                right = ((prompt == prompts[0]) == sums) != (chance.random() < 0.1)
                rows.append({
                    "llm": "some-7b", "dataset": "mawps", "split": split, "row": number, "query_id": f"mawps-{split}{number}",
                    "query": query, "answer": "1.0", "prompt_id": prompt, "prompt": f"{prompt}, please.", "correct": int(right),
                    "response": "So 1." if number % 2 else None, "prompt_is_training": prompt in prompts,
                })  # fmt: skip
    others = [row | {"llm": "other-13b", "correct": 0} for row in rows]
    return [{column: row[column] for column in columns} for row in rows + others]


EVERY = ["llm", "dataset", "split", "row", "query_id", "query", "answer", "prompt_id", "prompt", "correct", "response"]
LEAST = ["llm", "query", "prompt", "correct"]
CASES: dict[str, tuple[list[Row], dict[str, Any]]] = {
    "two prompts, no unseen ones, no critics": (
        log(["nan", "CoT"], {"train": ["nan", "CoT"], "test": ["nan", "CoT"]}, EVERY),
        {"learner": "kernel", "split": "given"},
    ),
    "unseen prompts and one that was trained": (
        log(["nan"], {"train": ["nan"], "test": ["nan", "new"]}, EVERY),
        {"learner": "trees", "split": "given"},
    ),
    "test calls alone, no ids, no completions": (
        log(["nan", "CoT", "APE"], {"test": ["nan", "CoT", "APE"], "train": ["nan", "CoT", "APE"]}, LEAST),
        {"learner": "kernel", "split": "question"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_goes_from_the_gate_to_the_page(case: str, tmp_path: Path, nursery: Nursery, database: Path) -> None:
    rows, how = CASES[case]
    published = how["split"] == "given"
    shutil.copy(database, tmp_path / "mlflow.db")
    for folder in ("encoders", "expectations"):
        shutil.copytree(REPO / "data" / folder, tmp_path / "data" / folder)
    write_table(tmp_path / "mawps.parquet", rows)
    pin = hashlib.sha256((tmp_path / "mawps.parquet").read_bytes()).hexdigest()
    (tmp_path / "mawps.yaml").write_text(f"log: {{file: {tmp_path}/mawps.parquet, sha256: {pin}, where: {{llm: some-7b}}}}\n")
    encoder = "data/encoders/tfidf.yaml"
    write_params(tmp_path, {
        "runtime": PARAMS["runtime"],
        "validate_data": {"expectations": "data/expectations/data.yaml", "allow_contamination": True},
        "validate_prompt_log": {"expectations": "data/expectations/prompt_log.yaml"},
        "prompt_log": {"source": "mawps.yaml", "split": how["split"], "fold": 0},
        "prompt_oirl": PARAMS["prompt_oirl"] | {"encoder": encoder, "learner": how["learner"]},
        "prompt_oirl_study": {
            "experiments": ["honest", "by_question"] + ["published"] * published, "encoder": encoder,
            "learner": how["learner"], "ks": [1, 2, 3, 4, 5, 6],
        },
        "report_prompts": {},
    })  # fmt: skip
    for stage in STAGES:
        done = nursery.run(tmp_path, stage)
        assert (done.code, done.stderr) == (0, ""), f"{stage}: {done.stderr}"
    found = read_json(tmp_path / "reports/prompt_oirl_study/metrics.json")
    prompts = {row["prompt"] for row in rows}
    assert len([name for name in found if name.startswith("single.")]) == (len(prompts) if published else 0)
    assert found["honest.questions"] == found["by_question.questions"]
    assert ("honest.unseen.success" in found) == (case.startswith("unseen"))
    assert "self_critique" not in found
    curve = tmp_path / "reports/prompt_oirl_study/curve.parquet"
    assert [row["k"] for row in read_table(curve)][:1] == [1] if published else not curve.exists()
    assert 'id="study"' in (tmp_path / "reports/prompts.html").read_text()
