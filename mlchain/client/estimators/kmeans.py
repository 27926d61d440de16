"""`ChainKMeans`: grouping rows by the nearest of a few centres."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import ClusterMixin, TransformerMixin  # type: ignore[import-untyped]
from sklearn.utils.validation import validate_data  # type: ignore[import-untyped]

from mlchain.client.estimators.base import LOCAL, ChainEstimator
from mlchain.client.estimators.plans import Recipe, Rows
from mlchain.client.estimators.settled import Fetched
from mlchain.client.scaling import Floats
from mlchain.ml_runtime import State, Trainer


class ChainKMeans(TransformerMixin, ClusterMixin, ChainEstimator):  # type: ignore[misc]
    """k-means on features as they are: distances are those of the rows, on 16 bits.

    See `Learner` for the parameters that say where and how it is fitted. A step moves every
    centre to the mean of the nearest rows of its batch, by default all of them; `epochs` counts
    only where `batch_size` is given, and then `options={"mini_batch": True}` is what one wants.

    Attributes are `cluster_centers_` (clusters x features), `labels_` (rows,) and `inertia_`, the
    sum of the squared distances of rows to their centres.
    """

    _target = "cluster"

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        network: str = LOCAL,
        key: str | Path | None = None,
        password_file: str | Path | None = None,
        tier: str = "audited",
        fee: int | None = None,
        epochs: int = 30,
        batch_size: int | None = None,
        chunk: int | None = None,
        segments: int = 1,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
        timeout: float = 120.0,
        verbose: bool | str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.network = network
        self.key = key
        self.password_file = password_file
        self.tier = tier
        self.fee = fee
        self.epochs = epochs
        self.batch_size = batch_size
        self.chunk = chunk
        self.segments = segments
        self.options = options
        self.random_state = random_state
        self.timeout = timeout
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> ChainKMeans:
        """Find the centres of rows `X` (rows x features, finite numbers); `y` is not looked at.

        Raises:
            ValueError: rows that scikit-learn would refuse, or fewer rows than clusters.
            ConfigError: parameters that do not fit.
            Rejected, Unreachable, Timeout, VerificationFailed: a chain did not deliver.
        """
        X = validate_data(self, X, dtype=np.float64)
        if not 1 <= self.n_clusters <= len(X):
            raise ValueError(f"n_samples={len(X)} should be at least n_clusters={self.n_clusters}")
        self._fit_rows(X, None, clusters=int(self.n_clusters))
        scores = self.model_.scores(X)
        self.labels_ = scores.argmax(axis=1)
        self.inertia_ = -float(scores.max(axis=1).sum())
        return self

    def predict(self, X: Any) -> Any:
        """Return the number of the nearest centre of each row."""
        return self._scores(X).argmax(axis=1)

    def transform(self, X: Any) -> Floats:
        """Return the distance of each row to every centre."""
        scores = self._scores(X)
        return np.asarray(np.sqrt(np.maximum(-scores, 0.0)))

    @property
    def _n_features_out(self) -> int:
        return int(self.n_clusters)

    def _adopt(self, found: Fetched) -> None:
        self.n_clusters = found.plan.outputs

    def _keep(self, state: State, trainer: Trainer, rows: Rows) -> None:
        super()._keep(state, trainer, rows)
        unit = 2.0 ** rows.dataset.header.exponents[0]
        self.cluster_centers_ = state.tensors[0].T * unit * rows.features.divisor
        self.cluster_centers_ += rows.features.shift

    def _recipe(self) -> Recipe:
        return Recipe(
            "kmeans", (), "", 0.0, None, self.epochs, self.batch_size, self.chunk,
            self.segments, self.options or {},
        )  # fmt: skip
