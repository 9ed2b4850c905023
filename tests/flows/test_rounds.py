"""Fifty rounds of eight stages that run and are committed at the same time: dvc.lock has every entry, every time."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml

from flows.engine.process import Children
from tests.flows.toy import ROOT

ROUNDS, STAGES = 50, 8
DVC_YAML = """
stages:
  part:
    matrix:
      n: [0, 1, 2, 3, 4, 5, 6, 7]
    cmd: python -m part ${item.n}
    deps: [part.py]
    params: [round]
    outs: ["out/${item.n}"]
"""
PART = """
import sys
from pathlib import Path
if __name__ == "__main__":
    Path("out").mkdir(exist_ok=True)
    Path("out", sys.argv[1]).write_text(Path("params.yaml").read_text() + sys.argv[1])
"""


def test_no_entry_of_dvc_lock_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    Path("dvc.yaml").write_text(DVC_YAML)
    Path("part.py").write_text(PART)
    children = Children(lambda name, line: print(name, line))
    children.prepare([])
    children.check()
    names = [f"part@{n}" for n in range(STAGES)]
    for number in range(ROUNDS):
        Path("params.yaml").write_text(f"round: {number}\n")
        with ThreadPoolExecutor(STAGES) as together:
            codes = list(together.map(lambda name: children.reproduce(name, {}, []).code, names))
        assert codes == [0] * STAGES
        lock = load_yaml("dvc.lock")["stages"]
        assert {name: lock[name]["params"]["params.yaml"]["round"] for name in names} == dict.fromkeys(names, number)
    children.close()
