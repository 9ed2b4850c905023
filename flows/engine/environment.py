"""Where a flow runs: what may change its numbers though no code, parameter or data has changed.

Two parts, because the ways out differ: an environment can be installed again, other hardware has to be found.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Environment = dict[str, Any]  # as environment.json keeps it


def environment() -> Environment:
    """Of this process; 20 ms, and on a machine with NVIDIA's driver as long as nvidia-smi takes."""
    return {
        "system": {"python": platform.python_version(), "OS": platform.platform()},
        "packages": _packages(),
        "hardware": {"CPU": _cpu(), "cores": os.cpu_count(), "GPUs": _gpus()},
    }


def environment_changes(then: Environment, now: Environment) -> list[str]:
    """`torch 2.12.0 → 2.13.0` for each that differs; python and the system first."""
    return [*_changes(then["system"], now["system"]), *_changes(then["packages"], now["packages"])]


def hardware_changes(then: Environment, now: Environment) -> list[str]:
    return list(_changes(then["hardware"], now["hardware"]))


def _changes(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name in sorted({*then, *now}):
        if name not in then:
            yield f"{name} {now[name]} is new"
        elif name not in now:
            yield f"{name} {then[name]} is gone"
        elif then[name] != now[name]:
            yield f"{name} {then[name]} → {now[name]}"


def _packages() -> dict[str, str]:
    """By the names of the folders that installers leave; importlib.metadata opens each, which takes ten times as long."""
    found: dict[str, str] = {}
    for folder in filter(os.path.isdir, dict.fromkeys(sys.path)):
        for info in Path(folder).glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.setdefault(name, version)  # the first on the path is the one imported
    return dict(sorted(found.items()))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """All of the machine: which of them a stage was given is not recorded, and they are seldom of different kinds."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=10)  # a sick driver lets it hang
    except subprocess.TimeoutExpired:
        return ["nvidia-smi does not answer"]
    return listing.stdout.splitlines() if listing.returncode == 0 else []
