"""Equations as GSM8K and people write them."""

import pytest

from tasks.rewards.equations import claims


@pytest.mark.parametrize(("text", "held"), [
    ("3+4*2=11", [True]),
    ("3+4*2=14", [True]),  # from left to right
    ("3+4*2=12", [False]),
    ("(3+4)*2=14", [True]),
    ("2*(3+(4-1))=12", [True]),
    ("(3+4)*2=11", [False]),
    ("-3+5=2", [True]),
    ("3-5 = -2", [True]),
    ("3−5=−2", [True]),
    ("10/4=2.5", [True]),
    ("10/3=3.33", [True]),
    ("10/3=3", [False]),
    ("18 ÷ 3 = <<18/3=6>>6", [True]),
    ("6 × $2.50 = $<<6*2.5=15>>15.", [True]),
    ("1,000-1=999", [True]),
    ("6/0=0", [False]),
    ("2 x 3=6", [True]),
    ("12-5-4=3", [True]),
    ("$3 + $4 = $7", [True]),
    ("$3 + $4 = $8", [False]),
    ("Albert needs $18.50 − $6.50 = $12 more.", [True]),
    ("40 * 25% = 10 and 10/40 = 25%", [True, True]),
    ("5 + 5 = 50%", [False]),
    ("3+4=7 and 7*2=15", [True, False]),
    ("3+4=7*2=14", [True, True]),
    ("In 2018, 3+4=7", [True]),
    ("Then x = 54*100/60 = 90 pounds", [True]),
    ("2x+3=7, 2x-3=7, a3+4=9", []),  # algebra and names claim nothing here
    ("x=5, 5=5, (3+4=7", [True]),
    ("no equation: 3+4", []),
    ("__import__('os')+1=2", []),
])  # fmt: skip
def test_equations(text, held):
    assert claims(text) == held


@pytest.mark.parametrize("text", ["(" * 50_000 + "1=1", "1+" * 50_000 + "1=1", "1+1=" * 2_000, "=" * 100_000])
def test_hostile_text_is_cut_short(text):
    assert len(claims(text)) <= 2_000
