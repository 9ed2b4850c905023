"""Long work says where it is: lines in a log, a bar on a terminal."""

import os
import pty
import subprocess
import sys

from tasks.core import progress
from tests.processes import ENVIRONMENT


def test_lines_count_from_where_a_resumed_run_starts(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert list(progress.track("abc", total=10, what="sft", start=7)) == ["a", "b", "c"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["sft: 8/10", "sft: 9/10", "sft: 10/10"]
    assert all("/s, " in line and line.endswith(" s left") for line in lines)


def test_short_work_prints_nothing(capsys):
    assert list(progress.track(range(3), total=3, what="sft")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar():
    ours, theirs = pty.openpty()
    script = "from tasks.core.progress import track\nfor _ in track(range(5), 5, 'sft'): pass"
    subprocess.run([sys.executable, "-c", script], stderr=theirs, env=ENVIRONMENT | {"TERM": "xterm"}, check=True)
    os.set_blocking(ours, False)
    written = os.read(ours, 65536)
    assert b"sft" in written
    assert b"5/5" in written
