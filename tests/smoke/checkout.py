"""A checkout of the repository in another folder, as small as the whole pipeline can be."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.engine.sweep.axes import read_list
from tasks.core.config import read_params
from tests.processes import ENVIRONMENT, REPO

SMALL = """
prepare_data.max_rows=160 prepare_data.too_long=drop task.max_new_tokens=32
base_model.num_steps=20 base_model.hidden_size=32 base_model.intermediate_size=64 base_model.num_attention_heads=2
base_model.num_hidden_layers=1 base_model.batch_size=8 base_model.micro_batch_size=4
sft.num_steps=20 sft.batch_size=8 sft.micro_batch_size=4
collect_preferences.num_prompts=48 collect_preferences.held_out_prompts=12
reward_model.num_steps=6 reward_model.batch_size=4
policy.ppo.num_steps=2 policy.ppo.rollout_batch_size=16 policy.ppo.group_size=4 policy.ppo.batch_size=16
policy.ppo.micro_batch_size=16
policy.grpo.num_steps=2 policy.grpo.rollout_batch_size=16 policy.grpo.group_size=4 policy.grpo.batch_size=16
policy.grpo.micro_batch_size=16
policy.raft.num_steps=2 policy.raft.rollout_batch_size=16 policy.raft.group_size=4
policy.dpo.num_steps=4 policy.dpo.batch_size=4
collect_prompt_log.num_queries=48 collect_prompt_log.num_test_queries=16
prompt_oirl.num_steps=6 prompt_oirl.batch_size=8
evaluate.num_prompts=16 evaluate.samples_per_prompt=2 evaluate.bootstrap_samples=200
imitation.seeds=2 imitation.bootstrap_samples=200 imitation.horizons=[4,8] imitation.num_labels=128
imitation.dagger_iterations=4 imitation.num_demonstrations=200 imitation.irl_steps=20 imitation.gail_steps=10
"""


def checkout(folder: Path) -> Path:
    """The files git knows or would add, as a repository with one commit."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in names:
        if (REPO / name).is_file() and not name.startswith("tests/") and name not in ("dvc.lock", "environment.json"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, target)
    for command in ("git init -q", "git add -A", "git -c user.name=t -c user.email=t@localhost commit -qm checkout"):
        subprocess.run(command.split(), cwd=folder, env=ENVIRONMENT, check=True)
    return folder


def assign(folder: Path, settings: list[str]) -> None:
    """Change params.yaml as `dvc exp run -S key=value` does."""
    params: dict[str, Any] = read_params(folder / "params.yaml")
    for setting in settings:
        key, _, value = setting.partition("=")
        *namespaces, name = key.split(".")
        inner = params
        for namespace in namespaces:
            inner = inner[namespace]
        assert name in inner, f"params.yaml: {key}"
        inner[name] = YAML(typ="safe").load(value)
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(params, stream)


def variants() -> dict[str, list[str]]:
    """Name -> settings of every variant in data/variants, as `assign` takes them."""
    lists = [read_list(file) for file in sorted((REPO / "data/variants").glob("*.yaml"))]
    return {
        name: [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        for listed in lists
        for name, changes in listed.items()
    }


def documented_commands() -> dict[str, str]:
    """Command -> page, of the bash blocks and the inline `make …` of README, CONTRIBUTING and docs; comments left out."""
    found: dict[str, str] = {}
    for page in [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
        lines = [re.sub(r"\s+# .*", "", line).strip() for line in blocks.splitlines() if not line.startswith("#")]
        for command in filter(None, [*lines, *re.findall(r"`(make [^`]+)`", text)]):
            found.setdefault(command, page.relative_to(REPO).as_posix())
    return found
