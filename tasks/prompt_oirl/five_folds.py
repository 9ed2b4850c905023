"""An r̂ judged on every question of a log by five folds; the log's own split plays no part.

`keys` says which questions share a fold. Each fold is scored by an r̂ fitted on the other four, and compared with the prompt
that was best on those four. Unseen prompts are those without training calls in the log; there the best prompt is the best of
them in hindsight.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tasks.core import seeds
from tasks.core.files import Row
from tasks.data.prompt_log import prompt_ids
from tasks.prompt_oirl.answers import Answers, Array, folds
from tasks.prompt_oirl.encoders import HiddenStates
from tasks.prompt_oirl.figures import figures
from tasks.prompt_oirl.noise import noise_figures
from tasks.prompt_oirl.scores import calibration
from tasks.prompt_oirl.selector import fit

FOLDS = 5


class FiveFolds:
    """Five folds over all questions that were asked under every training prompt."""

    def __init__(
        self,
        rows: Sequence[Row],
        model: HiddenStates | None,
        learner: str,
        seed: int,
        keys: Callable[[Sequence[str]], Sequence[str]],
    ):
        """keys: of question texts, one for each; questions of one key share a fold."""
        self.model, self.learner, self.seed = model, learner, seed
        trained, self.unseen = prompt_ids(rows)
        table = Answers.of(rows)
        self.answers = table.under(trained)
        self.fold = folds(keys(self.answers.queries), FOLDS, seed)
        self.others = {prompt_id: table.prompts[prompt_id] for prompt_id in self.unseen}
        asked = [row for row in rows if row["prompt_id"] in self.others]
        self.there = Answers.of(asked).under(self.unseen) if asked else None

    def of_fold(self, number: int) -> Row:
        """Chances of its questions, by an r̂ that saw no question of their keys: own prompts and then others."""
        training = self.answers.of_rows(np.flatnonzero(self.fold != number))
        selector = fit(training, self.model, self.learner, seeds.derive(self.seed, "fit", number))
        queries = [self.answers.queries[row] for row in np.flatnonzero(self.fold == number)]
        chances = selector.score(selector.encoder.encode(queries), list(self.others.values()))
        return {"chances": chances.tolist(), "best": int(training.success.argmax())}

    def chances(self, by_fold: Sequence[Row]) -> Array:
        """Of the prompts with training calls: (queries, prompts)."""
        chances = np.zeros((len(self.answers), len(self.answers.prompts)))
        for number, found in enumerate(by_fold):
            chances[self.fold == number] = np.array(found["chances"])[:, : chances.shape[1]]
        return chances

    def figures(self, by_fold: Sequence[Row]) -> dict[str, float]:
        chances = np.zeros((len(self.answers), len(self.answers.prompts) + len(self.others)))
        best = np.zeros(len(self.answers), dtype=int)
        for number, found in enumerate(by_fold):
            chances[self.fold == number], best[self.fold == number] = found["chances"], found["best"]
        own = len(self.answers.prompts)
        seen = figures(chances[:, :own], self.answers, best, self.seed)
        seen |= calibration(chances[:, :own], self.answers)[0]
        seen |= noise_figures(chances[:, :own], self.answers, int(self.answers.success.argmax()), self.seed)
        result = {"questions": float(len(self.answers))} | {f"seen.{name}": value for name, value in seen.items()}
        place = {query: row for row, query in enumerate(self.answers.queries)}
        kept = [row for row, query in enumerate(self.there.queries) if query in place] if self.there else []
        if self.there and kept:
            there = self.there.of_rows(np.array(kept))
            hindsight = np.full(len(there), there.success.argmax())
            unseen = figures(chances[[place[query] for query in there.queries], own:], there, hindsight, self.seed)
            result |= {f"unseen.{name}": value for name, value in unseen.items()}
        return result
