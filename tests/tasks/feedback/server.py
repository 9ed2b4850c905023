"""A real HTTP server that answers as an OpenAI-compatible endpoint does, and fails as one does."""

import json
import math
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


def completion(text: str | None, first: float | None = None) -> dict[str, Any]:
    """A chat completion; first: the probability of "1" to list with it."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if first is not None:
        listed = [{"token": token, "logprob": math.log(p)} for token, p in ((" 1", first * 0.8), ("2", (1 - first) * 0.8)) if p]
        tokens = [{"token": "\n", "top_logprobs": [{"token": "\n", "logprob": 0.0}]}, {"token": "1", "top_logprobs": listed}]
        choice["logprobs"] = {"content": tokens}
    return {"choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": 2}}


def ok(payload: Any) -> Reply:
    return 200, {}, json.dumps(payload).encode()


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two completions of the question in a request, by the templates of the toy's judge.yaml."""
    [*_, last] = re.finditer(r"^1: (.*)\n2: (.*)$", body["messages"][0]["content"], flags=re.MULTILINE)
    return last[1], last[2]


class Endpoint:
    """reply(body, number): what to answer the request of that number; None cuts the connection."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply | None], port: int = 0):
        endpoint, self.reply, self.bodies, self.keys, self.most = self, reply, [], [], 0
        self._lock, self._now = threading.Lock(), 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    endpoint.bodies.append(body | {"path": self.path})
                    endpoint.keys.append(self.headers.get("Authorization"))
                    number, endpoint._now = len(endpoint.bodies), endpoint._now + 1
                    endpoint.most = max(endpoint.most, endpoint._now)
                answer = endpoint.reply(body, number)
                with endpoint._lock:
                    endpoint._now -= 1
                if answer is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A client that gave up, or a connection that was cut on purpose."""

        self.server = Server(("127.0.0.1", port), Handler)
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
