# make align   the main job: every stage that is not up to date, through the Prefect flow
# make test    the tests
# make check   formatting, lint, types, rules: under a minute
# make ui      the experiments in the MLflow UI, http://127.0.0.1:5000
# make clean   what a run leaves behind; the DVC cache stays

SHELL := /bin/bash
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export REALIGN_SHARED ?= $(CURDIR)/../shared

.PHONY: align test check ui clean

align: .venv/ready
	python -m flows.align

test: .venv/ready
	pytest

check: .venv/ready
	ruff check .
	ruff format --check .
	mypy
	pytest -q tests/rules

ui: .venv/ready
	mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db \
	  --default-artifact-root mlartifacts

clean:
	rm -rf .scratch models reports runs data/prepared data/*.parquet mlflow.db mlartifacts

.venv/ready: requirements.lock
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --requirement requirements.lock
	touch $@
