"""What a judge is asked and what it answered, kept on disk by content: nothing is asked or paid for twice.

One file per answer, named by the hash of who was asked (model and address, or digest of the model's folder) and of the request.
They lie outside DVC, in .scratch/judge_answers or in the folder that REALIGN_JUDGE_CACHE names, and hold no key. A stage that
stopped, because the endpoint did, finds there what it had been told.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.core.files import read_json, write_json


@dataclass(frozen=True)
class Request:
    """text: what the judge reads. verdict: whether it says 1 or 2, or writes a rationale. repeat: 1 where it is asked again."""

    text: str
    max_tokens: int
    temperature: float
    verdict: bool
    repeat: int = 0


@dataclass(frozen=True)
class Answer:
    """first: the probability of "1" against "2", null where there is no verdict; tokens as the judge counts them.

    broken: not an answer at all, such as a page of a proxy; it is not kept.
    """

    text: str
    first: float | None
    prompt_tokens: int
    completion_tokens: int
    broken: bool = False


class Answers:
    """The kept answers of one judge."""

    def __init__(self, folder: Path, who: str):
        self.folder, self.who = folder, who

    def find(self, request: Request) -> Answer | None:
        file = self._file(request)
        return Answer(**read_json(file)["answer"]) if file.exists() else None

    def keep(self, request: Request, answer: Answer) -> None:
        if not answer.broken:
            file = self._file(request)
            own = file.with_suffix(f".{os.getpid()}")  # several stages may share the folder
            write_json(own, {"who": self.who, "request": asdict(request), "answer": asdict(answer)})
            os.replace(own, file)

    def _file(self, request: Request) -> Path:
        content = json.dumps([self.who, asdict(request)], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def answers_folder() -> Path:
    return Path(os.environ.get("REALIGN_JUDGE_CACHE", ".scratch/judge_answers"))
