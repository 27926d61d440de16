"""`ChainClassifier`: learning labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin  # type: ignore[import-untyped]
from sklearn.utils.metaestimators import available_if  # type: ignore[import-untyped]
from sklearn.utils.multiclass import check_classification_targets  # type: ignore[import-untyped]
from sklearn.utils.validation import validate_data  # type: ignore[import-untyped]

from mlchain.client.estimators.base import Learner
from mlchain.client.estimators.settled import Fetched
from mlchain.client.scaling import Floats

LOG_ODDS = ("softmax", "mlp", "cnn", "vit", "gaussian_nb", "multinomial_nb")
"""Models whose scores are logarithms of probabilities, up to a constant."""
ONE_FOR_EACH = ("logistic",)
"""Models whose scores are log odds of one class against the rest."""


def _has_probabilities(estimator: ChainClassifier) -> bool:
    return estimator._model_name in (*LOG_ODDS, *ONE_FOR_EACH)


class ChainClassifier(ClassifierMixin, Learner):  # type: ignore[misc]
    """A classifier, by default softmax regression; labels may be of any kind.

    See `Learner` for all parameters. `classes_` are the labels, in order.
    """

    _plain, _target = "softmax", "class"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self._model_name == "multinomial_nb"
        return tags

    def fit(self, X: Any, y: Any) -> ChainClassifier:
        """Learn from rows `X` (rows x features, finite numbers) and their labels `y`.

        Raises:
            ValueError: rows that scikit-learn would refuse, or labels of a single class.
            ConfigError: parameters that do not fit.
            Rejected, Unreachable, Timeout, VerificationFailed: a chain did not deliver.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"ChainClassifier needs 2 classes, the labels are of 1 class: {self.classes_[0]!r}"
            )
        if self.__sklearn_tags__().input_tags.positive_only and X.min() < 0:
            raise ValueError(f"Negative values in data passed to {self._model_name}")
        self._fit_rows(X, numbers, classes=len(self.classes_))
        return self

    def predict(self, X: Any) -> Any:
        """Return the label of each row."""
        scores = self._scores(X)
        return self.classes_[scores.argmax(axis=1)]

    def decision_function(self, X: Any) -> Floats:
        """Return the scores of each row, one a class; for two classes how far the second leads."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Floats:
        """Return the probability of each class for each row. Not exact: it takes exponentials."""
        scores = self._scores(X)
        if self._model_name in ONE_FOR_EACH:
            each = 0.5 * (1.0 + np.tanh(0.5 * scores))  # the sigmoid, without overflow
            return np.asarray(each / each.sum(axis=1, keepdims=True))
        each = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(each / each.sum(axis=1, keepdims=True))

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Floats:
        """Return the logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def _adopt(self, found: Fetched) -> None:
        super()._adopt(found)
        self.classes_ = found.classes

    def _labels(self) -> list[int | str]:
        labels = [
            int(v) if isinstance(v, bool | float) and v == int(v) else v
            for v in self.classes_.tolist()
        ]
        return labels if all(isinstance(v, int | str) for v in labels) else []
