"""The table of what a budget buys is what was recorded."""

from pathlib import Path

import pytest

from docs.frontier_tables import NONE, frontier_tables, main
from tasks.core.errors import InputError
from tasks.core.files import write_json

GAIN = {"gain": 0.067, "gain_low": 0.045, "gain_high": 0.09}
AGAINST = {"against_fixed": 0.02, "against_fixed_low": -0.001, "against_fixed_high": 0.04}
PAID = {"value": 0.25, "estimate": 0.247, "estimate_error": 0.01}
POLICY = (
    {"way": "policy", "unit": "calls", "budget": 3.2, "queries": 1000, "success": 0.307, "cost": 3.21} | GAIN | AGAINST | PAID
)
ALL = {"way": "every prompt", "unit": "tokens", "budget": None, "queries": 1000, "success": 0.35, "cost": 4100.0} | GAIN
FIXED = ALL | {"way": "fixed order", "unit": "calls", "budget": 3.2}


def test_a_policy_stands_beside_its_references(tmp_path: Path) -> None:
    assert frontier_tables(tmp_path) == NONE
    where = {"commit": "a" * 40, "dirty": False, "date": "2026-01-31", "machine": {"CPU": "one", "cores": 2}}
    write_json(tmp_path / "gsm8k.json", where | {"rows": [POLICY, FIXED, ALL]})
    title, _, said, _, _, _, first, second = frontier_tables(tmp_path).splitlines()
    assert title == "### gsm8k: 1000 questions"
    assert said == f"Commit `{'a' * 12}`; recorded 2026-01-31; CPU one, cores 2."
    assert first == "| 3.2 | 3.21 | 30.7 | +6.7 [+4.5, +9.0] | +2.0 [-0.1, +4.0] | 0.250 | 0.247 ± 0.010 |"
    assert second == "| every prompt | 4100 tokens | 35.0 | +6.7 [+4.5, +9.0] |  |  |  |"


def test_a_study_without_a_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run prompt_oirl_study with `budget` among its experiments"):
        main(tmp_path, "gsm8k")
