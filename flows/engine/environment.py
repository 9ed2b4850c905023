"""Where a flow runs: what may change its numbers though no code, parameter or data has changed.

Two parts, because the ways out differ: an environment can be installed again, other hardware has to be found.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.core.files import write_json

Environment = dict[str, Any]  # as environment.json keeps it
KEPT = Path("environment.json")  # beside dvc.lock, committed with it: whoever clones the project has no MLflow of ours


def environment() -> Environment:
    """Of this process; 20 ms, and on a machine with NVIDIA's driver as long as nvidia-smi takes."""
    return {
        "system": {"python": platform.python_version(), "OS": platform.platform()},
        "packages": _packages(),
        "hardware": {"CPU": _cpu(), "cores": os.cpu_count(), "GPUs": _gpus()},
    }


def keep_environment(ran: dict[str, Any]) -> None:
    """Say, beside dvc.lock, that these stages ran here. ran: their entries in dvc.lock."""
    here, kept = environment(), _read(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    others = [one | {"stages": {name: outs for name, outs in one["stages"].items() if name not in ran}} for one in kept]
    this = next((one for one in others if one["where"] == here), {"where": here, "stages": {}})
    this["stages"] |= {name: _outs(entry) for name, entry in ran.items()}
    write_json(KEPT, [one for one in others if one["stages"] and one is not this] + [this])


def kept_environments(text: str, lock: dict[str, Any]) -> dict[str, Environment]:
    """Where the stages of a dvc.lock ran, by an environment.json; without those whose outputs are others by now."""
    found = [(name, outs, one["where"]) for one in _read(text) for name, outs in one["stages"].items()]
    return {name: where for name, outs, where in found if name in lock and _outs(lock[name]) == outs}


def environment_changes(then: Environment, now: Environment) -> list[str]:
    """`torch 2.12.0 → 2.13.0` for each that differs; python and the system first."""
    return [*_changes(then["system"], now["system"]), *_changes(then["packages"], now["packages"])]


def hardware_changes(then: Environment, now: Environment) -> list[str]:
    return list(_changes(then["hardware"], now["hardware"]))


def _read(text: str) -> list[dict[str, Any]]:
    """Empty if the file cannot be read, as after a merge conflict: stages that run are recorded again."""
    try:
        found: list[dict[str, Any]] = json.loads(text)
    except ValueError:
        return []
    return found


def _outs(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry.get("outs", []), sort_keys=True).encode()).hexdigest()[:12]


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
