"""THE WORK: every stage of dvc.yaml is `python -m tasks.<...>`. Nothing in here knows who schedules it.

Importing this package turns off the telemetry of every library below it, before any of them is loaded.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
