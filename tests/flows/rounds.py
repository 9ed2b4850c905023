"""Rounds of eight stages that run and are committed at the same time. A few are a test, fifty a bench."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

from dvc.utils.serialize import load_yaml

from flows.engine.children import Children

NAMES = [f"part@{n}" for n in range(8)]
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


def lost_entries(folder: Path, rounds: int) -> int:
    """How many entries of dvc.lock were missing or stale after the round in which their stage ran."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "part.py").write_text(PART)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    lost = 0
    with chdir(folder):
        children = Children(print)
        children.prepare([])
        children.check()
        for number in range(rounds):
            Path("params.yaml").write_text(f"round: {number}\n")
            with ThreadPoolExecutor(len(NAMES)) as together:
                ended = list(together.map(lambda name: children.reproduce(name, {}, []), NAMES))
            assert [one.code for one in ended] == [0] * len(NAMES), ended
            lock = load_yaml("dvc.lock")["stages"]
            lost += sum(lock.get(name, {}).get("params") != {"params.yaml": {"round": number}} for name in NAMES)
        children.close()
    return lost
