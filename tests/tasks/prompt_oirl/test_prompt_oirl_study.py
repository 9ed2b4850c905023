"""The experiments on a whole log: folds that do not leak, every subset of the prompts, means over them, and the stage."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.core.files import read_json, read_table, write_json, write_table
from tasks.data.prompt_log import PromptLogConfig, prompt_ids, read_critics, related
from tasks.prompt_oirl import five_folds
from tasks.prompt_oirl.five_folds import FOLDS, FiveFolds
from tasks.prompt_oirl.published import Published, curve, self_critique
from tasks.prompt_oirl.study import PromptOirlStudyConfig, study
from tests.processes import REPO
from tests.tasks.prompt_oirl.test_selector import PROMPTS, rows_of

UNSEEN = {"other": "Think in small steps:"}


@pytest.fixture(scope="module")
def rows():
    return rows_of(80) + rows_of(40, seed=1, split="test", prompts=PROMPTS | UNSEEN)


@pytest.mark.parametrize("keys", [related, list])
def test_no_fit_ever_sees_a_text_it_is_scored_on(monkeypatch, keys):
    """Neither directly nor for TF-IDF, calibration or the best prompt: all a fit gets is the other four folds. Nor, if the keys
    are those of related questions, a near-repeat of it."""
    rows = rows_of(60) + [row | {"query": row["query"].replace("?", " today?")} for row in rows_of(60)]
    seen, scored = [], []

    class Spy:
        encoder = property(lambda self: self)

        def encode(self, queries):
            scored.append(set(queries))
            return np.zeros((len(queries), 1))

        def score(self, features, others):
            return np.full((len(features), 2), 0.5)

    def spy_fit(answers, model, learner, seed):
        seen.append(set(answers.queries))
        return Spy()

    monkeypatch.setattr(five_folds, "fit", spy_fit)
    experiment = FiveFolds(rows, None, "mean", 0, keys)
    found = experiment.figures([experiment.of_fold(fold) for fold in range(FOLDS)])
    assert found["questions"] == 120
    assert len(seen) == len(scored) == FOLDS
    assert set().union(*scored) == {row["query"] for row in rows}
    crossed = 0
    for one, other in zip(seen, scored, strict=True):
        assert len(one | other) == 120
        names = related([*one, *other])
        crossed += len(set(names[: len(one)]) & set(names[len(one) :]))
    assert (crossed == 0) == (keys is related)


def test_five_folds_find_what_suits_a_query_and_score_unseen_prompts(rows):
    honest = FiveFolds(rows, None, "kernel", 0, related)
    found = honest.figures([honest.of_fold(fold) for fold in range(FOLDS)])
    assert found["seen.success"] > 0.8
    assert found["seen.gain_low"] > 0
    assert 0 < found["unseen.success"] < 1


def test_every_subset_is_fitted_and_compared(rows):
    assert prompt_ids(rows) == (["plain", "steps"], ["other"])
    published = Published(rows, None, "kernel", 0, [1, 2])
    assert published.subsets == [("plain",), ("steps",), ("plain", "steps")]
    one, _, both = (published.of_subset(subset) for subset in published.subsets)
    assert one["seen_success"] == one["seen_best_prompt_success"] == published.single()["plain"]
    assert both["seen_success"] > both["seen_best_prompt_success"]
    assert (both["k"], both["prompts"]) == (2, "plain+steps")
    assert both["unseen_success"] == published.single()["other"]  # the only candidate
    assert both["all_success"] > 0.7


def test_more_prompts_than_there_are_is_refused(rows):
    with pytest.raises(InputError, match="the log has 2 training prompts only"):
        Published(rows, None, "kernel", 0, [3])


def test_means_and_spreads_over_subsets_by_hand():
    subsets = [
        {"k": 1, "seen_success": 0.2, "seen_precision": None},
        {"k": 1, "seen_success": 0.6, "seen_precision": 0.5},
        {"k": 2, "seen_success": 0.7, "seen_precision": None},
    ]
    first, second = curve(subsets)
    assert (first["seen"], first["seen_spread"]) == (pytest.approx(0.4), pytest.approx(0.2))
    assert (first["seen_precision"], first["seen_precision_spread"]) == (0.5, 0.0)
    assert (second["k"], second["seen"], second["seen_spread"]) == (2, 0.7, 0.0)
    assert second["seen_precision"] is second["unseen"] is None


def test_self_critique_takes_the_answer_the_model_is_surest_of():
    rows = [row | {"correct": correct} for row, correct in zip(rows_of(2, split="test"), [1, 0, 0, 1], strict=True)]
    sure = [("plain", 0, 0.9), ("steps", 0, 0.1), ("plain", 1, 0.6), ("steps", 1, None)]
    critics = [{"prompt_id": id, "row": row, "confidence": value} for id, row, value in sure]
    assert self_critique(rows, critics, list(PROMPTS)) == 0.5
    rows[2]["correct"] = None
    assert self_critique(rows, critics, list(PROMPTS)) == 1.0  # of the call that was judged under both
    assert self_critique(rows, critics[:1], list(PROMPTS)) is None


def test_the_file_of_a_log_names_its_critics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "critics.parquet", [{"llm": "a", "prompt_id": "go", "row": 0, "confidence": 0.5}])
    log = tmp_path / "log.yaml"
    log.write_text("log: {file: log.parquet}\n")
    assert read_critics(log) == read_critics(tmp_path / "log.parquet") == []
    log.write_text("log: {file: log.parquet, critics: {file: critics.parquet}}\n")
    with pytest.raises(InputError, match="is not pinned; add `sha256: ") as refused:
        read_critics(log)
    pin = str(refused.value).split("sha256: ")[1].rstrip("`")
    log.write_text(f"log: {{file: log.parquet, critics: {{file: critics.parquet, sha256: {pin}, where: {{llm: a}}}}}}\n")
    [row] = read_critics(log)
    assert (row["prompt_id"], row["row"], row["confidence"]) == ("go", 0, 0.5)


def studied(folder, rows, experiments, split="given", refusal=None):
    """What the study of these rows records, called without a process. refusal: what the gate said of the split."""
    write_table(folder / "log.parquet", rows)
    write_json(folder / "reports/validate_prompt_log/verdict.json", {"contaminated": bool(refusal), "refusal": refusal})
    found = SimpleNamespace(metrics={}, tables={})
    stage = SimpleNamespace(
        seed=0,
        params=lambda _: PromptLogConfig(source="log.parquet", split=split, fold=0),
        dep=lambda path: Path(path) if path.startswith("/") else folder / path,
        tracker=SimpleNamespace(tag=lambda *_: None, metrics=lambda *_: None),
        resume=lambda **_: None,
        steps=range,
        table=lambda *_: None,
        record=lambda **metrics: found.metrics.update(metrics),
        report=lambda _, tables: found.tables.update(tables),
    )
    encoder = str(REPO / "data/encoders/tfidf.yaml")
    study(PromptOirlStudyConfig(experiments=experiments, encoder=encoder, learner="kernel", ks=[2]), stage)
    return found


def test_a_leaking_split_stops_what_uses_it_alone(rows, tmp_path):
    """`refusal` is what params.yaml would have to allow; folds by question go on without."""
    assert studied(tmp_path, rows, ["honest", "by_question"], refusal="3 of 4 rows fail").metrics["contaminated"] is False
    with pytest.raises(InputError, match="3 of 4 rows fail"):
        studied(tmp_path, rows, ["honest", "published"], refusal="3 of 4 rows fail")
    assert studied(tmp_path, rows, ["published"]).tables["curve"][0]["k"] == 2


def test_published_is_the_split_that_was_published(rows, tmp_path):
    with pytest.raises(InputError, match=r"and prompt_log\.split is question; set it to given, or take `honest`"):
        studied(tmp_path, rows, ["published"], split="question")


def test_the_stage_records_folds_and_curve(project):
    metrics = project.receipt("prompt_oirl_study")["metrics"]
    assert metrics["honest.questions"] == 136
    assert metrics["honest.seen.success"] > 0.8
    assert metrics.keys() >= {"single.go", "single.stop", "single.ask", "honest.seen.gain_low", "contaminated"}
    folder = project.folder / "reports/prompt_oirl_study"
    assert read_json(folder / "metrics.json") == metrics
    assert [row["k"] for row in read_table(folder / "curve.parquet")] == [1, 3]
    assert [row["prompts"] for row in read_table(folder / "subsets.parquet")] == ["go", "stop", "ask", "go+stop+ask"]
    run = project.runs("prompt_oirl_study")[0]
    history = project.client().get_metric_history(run.info.run_id, "curve/seen")
    assert [point.step for point in history] == [1, 3]


def test_none_is_run_unless_asked_for(project, tmp_path):
    again = project.copy(tmp_path / "project")
    again.set("prompt_oirl_study", experiments=[])
    done = again.run("prompt_oirl_study")
    assert (done.code, done.stderr) == (0, "")
    assert [file.name for file in (again.folder / "reports/prompt_oirl_study").iterdir()] == ["metrics.json"]
