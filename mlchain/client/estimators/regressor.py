"""`ChainRegressor`: learning a quantity."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin  # type: ignore[import-untyped]
from sklearn.utils.validation import validate_data  # type: ignore[import-untyped]

from mlchain.client.estimators.base import Learner
from mlchain.client.scaling import Floats


class ChainRegressor(RegressorMixin, Learner):  # type: ignore[misc]
    """A regressor, by default a line found by gradient; "ridge" solves for it in one pass.

    See `Learner` for all parameters. Targets are standardised for training; `alpha` counts
    in units of standardised features and targets.
    """

    _plain, _target = "linear", "value"

    def fit(self, X: Any, y: Any) -> ChainRegressor:
        """Learn from rows `X` (rows x features, finite numbers) and their values `y`.

        Raises:
            ValueError: rows that scikit-learn would refuse.
            ConfigError: parameters that do not fit.
            Rejected, Unreachable, Timeout, VerificationFailed: a chain did not deliver.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._fit_rows(X, np.asarray(y, np.float64))
        return self

    def predict(self, X: Any) -> Floats:
        """Return the value of each row."""
        return np.ascontiguousarray(self._scores(X)[:, 0])
