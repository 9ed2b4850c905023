# One image for all: the flow, the workers, and the two servers of deploy/compose.yaml.
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /realign
COPY requirements.lock deploy/requirements.txt /
RUN pip install --no-cache-dir --requirement /requirements.lock --requirement /requirements.txt
COPY . .
RUN git config --global --add safe.directory /realign
ENV REALIGN_CHECKOUT=/realign DVC_NO_ANALYTICS=1 MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["python", "-m", "flows.worker", "cpu"]
