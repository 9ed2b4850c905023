"""The traces of an MLflow experiment as plain rows: what an application was asked, under which prompt, what was said of it."""

import json
from typing import TYPE_CHECKING, Any

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.mlflow_client import connect, short

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Trace

PAGE = 200


def read_traces(experiment: str) -> list[Row]:
    """One row per trace, the oldest first {trace_id, ended, inputs, outputs, prompts, feedback}.

    ended: whether it came to its end without an error. inputs, outputs: of the root span. prompts: {URI: text} of the prompt
    versions that it loaded. feedback: {name: value}; what a person said goes before what code or a judge said, and later
    before earlier. Raises InputError for an experiment or a prompt version that is not there.
    """
    client = connect()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        there = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise InputError(f"MLflow has no experiment {experiment!r}; there are {there}")
    page = client.search_traces(locations=[found.experiment_id], max_results=PAGE)
    traces = [*page]
    while page.token:
        page = client.search_traces(locations=[found.experiment_id], max_results=PAGE, page_token=page.token)
        traces += page
    traces.sort(key=lambda trace: (trace.info.request_time, trace.info.trace_id))
    texts: dict[str, str] = {}
    return [_row(client, trace, texts) for trace in traces]


def _row(client: "MlflowClient", trace: "Trace", texts: dict[str, str]) -> Row:
    from mlflow.entities.trace_state import TraceState
    from mlflow.tracing.constant import TraceTagKey

    linked = json.loads(trace.info.tags.get(TraceTagKey.LINKED_PROMPTS, "[]"))
    uris = [f"prompts:/{prompt['name']}/{prompt['version']}" for prompt in linked]
    for uri in uris:
        if uri not in texts:
            texts[uri] = _text(client, uri, trace.info.trace_id)
    return {
        "trace_id": trace.info.trace_id,
        "ended": trace.info.state == TraceState.OK,
        "inputs": json.loads(trace.data.request or "null"),
        "outputs": json.loads(trace.data.response or "null"),
        "prompts": {uri: texts[uri] for uri in uris},
        "feedback": _feedback(trace),
    }


def _text(client: "MlflowClient", uri: str, trace_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        template = client.load_prompt(uri).template
    except MlflowException as error:
        raise InputError(f"trace {trace_id}: {uri} is not in MLflow's prompt registry any more ({short(error)})") from None
    return template if isinstance(template, str) else "\n".join(f"{each['role']}: {each['content']}" for each in template)


def _feedback(trace: "Trace") -> dict[str, Any]:
    from mlflow.entities import AssessmentSourceType, Feedback

    given = [each for each in trace.info.assessments if isinstance(each, Feedback) and each.valid and each.error is None]
    given.sort(key=lambda each: (each.source.source_type == AssessmentSourceType.HUMAN, each.create_time_ms))
    return {each.name: each.value for each in given}
