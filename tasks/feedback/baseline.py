"""What a reward model must beat: logistic regression on the words of the completions."""

from collections.abc import Sequence

from tasks.core.files import Row
from tasks.core.statistics import wilson

TOKENS = r"\w+|[^\w\s]"  # signs are words too: "=" and "####"


def baseline_accuracy(training: Sequence[Row], held_out: Sequence[Row]) -> dict[str, float]:
    """Share of held-out pairs it orders rightly, with its 95 % Wilson interval; an equal score counts half.

    Bradley-Terry on φ(chosen) − φ(rejected), φ the TF-IDF of words and pairs of words; what the completions share, the prompt
    above all, cancels out. Nothing is tuned: the settings are scikit-learn's.
    """
    import scipy.sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    sides = [[row[side] for row in training] for side in ("chosen", "rejected")]
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKENS).fit(sides[0] + sides[1])
    gaps = words.transform(sides[0]) - words.transform(sides[1])
    labels = [1] * len(training) + [0] * len(training)
    model = LogisticRegression(fit_intercept=False, max_iter=1000).fit(scipy.sparse.vstack([gaps, -gaps]), labels)
    tests = words.transform([row["chosen"] for row in held_out]) - words.transform([row["rejected"] for row in held_out])
    margins = model.decision_function(tests)
    right = float((margins > 0).sum() + 0.5 * (margins == 0).sum())
    accuracy, low, high = wilson(right, len(held_out))
    return {"baseline_accuracy": accuracy, "baseline_accuracy_low": low, "baseline_accuracy_high": high}
