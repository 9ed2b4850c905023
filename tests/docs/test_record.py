"""What a finished sweep found is kept in one file, and the tables show it with its interval, commit and machine."""

import subprocess
from pathlib import Path

import pytest

from docs.record import record
from docs.results_tables import curve, results_tables
from tasks.core.errors import InputError
from tasks.core.files import read_json
from tasks.report.sweep.page import main
from tests.tasks.report.test_sweep import RATE, SEED, Written


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two rates, two seeds each, in checkouts that are one commit."""
    written = Written(tmp_path / "rates", {RATE: 0.003, SEED: 0})
    for rate, ppo in ((0.001, 0.9), (0.003, 0.4)):
        for seed in (0, 1):
            written.add(f"rate={rate},seed={seed}", {RATE: rate, SEED: seed}, ppo=ppo)
    written.page()
    main(written.folder)
    for command in ("git init -q", "git -c user.name=t -c user.email=t@localhost commit -q --allow-empty -m one"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    return written.folder


def test_what_was_found_is_shown_as_it_was_recorded(sweep: Path) -> None:
    found = record(sweep)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=sweep, capture_output=True, text=True, check=True).stdout.strip()
    assert (found["name"], found["commit"], found["dirty"], found["ended"], found["variants"]) == ("rates", head, False, 4, 4)
    assert found["gains"] == read_json(sweep / "gains.json")
    shown = results_tables([found])
    assert f"Commit `{head[:12]}`; recorded {found['date']}; CPU {found['machine']['CPU']}" in shown
    row = next(row for row in found["gains"] if row["model"] == "ppo" and "0.001" in row["group"])
    greedy = row["greedy"]
    interval = f"[{100 * greedy['low']:+.1f}, {100 * greedy['high']:+.1f}]"
    line = next(line for line in shown.splitlines() if line.startswith("| ppo, learning_rate 0.001 | 2 × 60 |"))
    assert f"| {100 * greedy['accuracy']:.1f} | {100 * greedy['gain']:+.1f} {interval} |" in line
    difference = next(row for row in found["differences"] if row["model"] == "ppo")["greedy"]
    assert f"| {100 * difference['difference']:+.1f} [{100 * difference['low']:+.1f}" in shown
    assert "| rate=0.001,seed=0 | " in shown


def test_sft_is_shown_at_a_lower_temperature_too(sweep: Path) -> None:
    figures = {"sft": {"accuracy": 0.9, "sampled_accuracy": 0.7}, "control": {"cool_sft": {"sampled_accuracy": 0.8}}}
    assert "| one | 90.0 | 70.0 | 80.0 |" in results_tables([record(sweep) | {"models": {"one": figures}}])


def test_the_page_of_an_algorithm_has_its_curve(sweep: Path) -> None:
    found = record(sweep)
    assert found["curves"]["ppo"] == {"metric": "rollout/score_mean", "runs": 4, "steps": [0, 1, 2], "values": [0.1] * 3}
    heading, said, drawing = curve("ppo", [found])
    assert heading == "## Recorded curve"
    assert "mean of 4 runs of the sweep [rates](../results.md)" in said
    assert "line [0.100, 0.100, 0.100]" in drawing
    assert curve("dpo", [found]) == []


def test_a_sweep_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no finished sweep; `python -m flows\.compare` leaves one"):
        record(tmp_path)


def test_without_a_recorded_sweep_the_page_says_how_to_record_one() -> None:
    assert "`python -m docs.record .scratch/compare/<name>`" in results_tables([])
