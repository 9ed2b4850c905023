# One image for all: the flow, the workers, and the two servers of deploy/compose.yaml.
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /realign
COPY requirements.lock .
# What only servers and object stores need is not in the lock; it may not move what is.
RUN pip install --no-cache-dir --requirement requirements.lock && \
    pip install --no-cache-dir --constraint requirements.lock asyncpg boto3 dvc-s3 psycopg2-binary
COPY . .
RUN git config --global --add safe.directory /realign
ENV REALIGN_CHECKOUT=/realign DVC_NO_ANALYTICS=1 MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["python", "-m", "flows.worker", "cpu"]
