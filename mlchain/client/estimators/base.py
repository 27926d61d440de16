"""What the estimators share: their parameters, fitting here or on a chain, and the fitted model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator  # type: ignore[import-untyped]
from sklearn.utils import check_random_state  # type: ignore[import-untyped]
from sklearn.utils.validation import (  # type: ignore[import-untyped]
    check_is_fitted,
    validate_data,
)

from mlchain.client.estimators.local import train_here
from mlchain.client.estimators.plans import Recipe, Rows, prepare_rows
from mlchain.client.estimators.receipts import ChainReceipt, LocalReceipt
from mlchain.client.estimators.remote import LEAST_FEE, Place, train_on_chain
from mlchain.client.estimators.settled import Fetched, Source, fetch_job
from mlchain.client.scaling import Floats
from mlchain.client.submit import Terms
from mlchain.client.training import TrainingJob
from mlchain.client.userfile import write_file
from mlchain.errors import ConfigError
from mlchain.ml_runtime import Model, State, Trainer
from mlchain.ml_runtime.raw import on_raw_features
from mlchain.vm.families.jobs import fixed_order, fixed_seed

LOCAL = "local://"
MAX_SEED = 2**31 - 1


class ChainEstimator(BaseEstimator):  # type: ignore[misc]
    """One way to fit: rows to a job, the job to a model, here or on a chain.

    Whoever derives from it has the parameters network, key, password_file, tier, fee,
    random_state, timeout and verbose; see `Learner`.
    """

    _target = ""
    receipt_: LocalReceipt | ChainReceipt
    network: str
    key: str | Path | None
    password_file: str | Path | None
    tier: str
    fee: int | None
    random_state: Any
    timeout: float
    verbose: bool | str

    def to_onnx(self, path: str | Path | None = None, element: str = "float") -> bytes:
        """Return the fitted model as an ONNX file that reads raw features, and write it to `path`.

        Other runtimes round as they like: what they answer is close, not equal bit for bit.

        Raises:
            ConfigError: the extra `onnx` is not installed, or the model has no counterpart there.
        """
        from mlchain.ml_runtime.importers import to_onnx

        check_is_fitted(self)
        data = to_onnx(self.model_, element)
        if path is not None:
            write_file(Path(path), data)
        return data

    @classmethod
    def from_job(
        cls, job: str, *, network: str, source: Source = None, **parameters: Any
    ) -> ChainEstimator:
        """Return the estimator that a settled job of a chain has fitted, receipt and all.

        `job` is its id or a unique beginning of it. `source` is where its rows came from, for how
        they were scaled stands on no chain: (X, y) as they were given to `fit`, or the job file.
        It is believed only if it makes the very dataset of the job. Without it features are read
        as the dataset has them, and labels are numbers. `parameters` are those of the estimator.

        Raises:
            ConfigError: the job learned something else than this estimator does.
            VerificationFailed: receipt, state or source are not of this job.
            NotFound, Unreachable: no such job, no result yet, or nobody answers.
        """
        found = fetch_job(network, job, source)
        if found.plan.target != cls._target:
            raise ConfigError(f"job {job} learned a {found.plan.target}, not a {cls._target}")
        made = cls(network=network, **parameters)
        made.n_features_in_ = found.plan.features
        made._adopt(found)
        made.receipt_ = found.receipt
        made._keep(found.state, found.trainer, found.rows)
        return made

    def _adopt(self, found: Fetched) -> None:
        """Take over what a job says beside its model."""

    def _keep(self, state: State, trainer: Trainer, rows: Rows) -> None:
        """Set what follows from a trained state."""
        self.state_digest_ = state.digest().hex()
        self.n_iter_ = trainer.task.steps
        self.model_ = self._raw_model(trainer.model(state), rows)

    def _recipe(self) -> Recipe:
        """Return how to train."""
        raise NotImplementedError

    def _fit_rows(
        self, x: Floats, y: NDArray[Any] | None, *, classes: int = 0, clusters: int = 0
    ) -> None:
        """Train on rows, and set what is known then."""
        prepared = prepare_rows(self._recipe(), x, y, classes=classes, clusters=clusters)
        number = self._seed_number()
        state: State
        if self.network == LOCAL:
            seed = fixed_order(fixed_seed(self._draw() if number is None else number))
            trained = train_here(prepared.job.task, prepared.rows.dataset, seed)
            state, self.receipt_ = trained.state, LocalReceipt(trained, self._job_name)
        else:
            state, self.receipt_ = train_on_chain(
                self._place(), prepared.job, self._terms(prepared.job, number), self.verbose
            )
        no_seed = bytes(32)  # it plays no part in what follows
        self._keep(state, Trainer(prepared.job.task, prepared.rows.dataset, no_seed), prepared.rows)

    def _raw_model(self, model: Model, rows: Rows) -> Model:
        target, shift, factor = rows.target, 0.0, 1.0
        if target is not None:
            shift, factor = float(target.shift[0]), float(target.spread[0])
        elif model.answer == "cluster":  # minus squared distances, of rows as they came
            factor = 4.0 ** model.exponents[0]
        return on_raw_features(
            model,
            rows.features.shift,
            rows.features.divisor,
            classes=self._labels(),
            score_shift=shift,
            score_factor=factor,
        )

    @property
    def _job_name(self) -> str:
        return f"{type(self).__name__} {self._recipe().model}"[:64]

    def _place(self) -> Place:
        password = None if self.password_file is None else Path(self.password_file)
        key = None if self.key is None else str(self.key)
        return Place(self.network, key, password, self.timeout)

    def _terms(self, job: TrainingJob, number: int | None) -> Terms:
        fee = max(LEAST_FEE, 2 * job.least_fee) if self.fee is None else self.fee
        return Terms(self._job_name, self.tier, fee, -1 if number is None else number)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if hasattr(self, "receipt_"):
            bundle["text/plain"] += f"   {self.receipt_!r}"
            if "text/html" in bundle:
                bundle["text/html"] += self.receipt_._repr_html_()
        return bundle

    def _repr_html_inner(self) -> str:
        card = self.receipt_._repr_html_() if hasattr(self, "receipt_") else ""
        return str(super()._repr_html_inner()) + card

    def _labels(self) -> list[int | str]:
        """Return the labels for the model file; none where they are neither integers nor text."""
        return []

    def _seed_number(self) -> int | None:
        """Return the number that stands for `random_state`, None if nothing is fixed."""
        if self.random_state is None:
            return None
        if isinstance(self.random_state, int | np.integer):
            check_random_state(self.random_state)  # refuses what is no seed
            return int(self.random_state)
        return self._draw()

    def _draw(self) -> int:
        return int(check_random_state(self.random_state).randint(MAX_SEED))

    def _scores(self, x: Any) -> Floats:
        """Return the model's scores of rows, which are validated first."""
        check_is_fitted(self)
        rows = validate_data(self, x, reset=False, dtype=np.float64)
        return self.model_.scores(rows)


class Learner(ChainEstimator):
    """The parameters of estimators that learn labels or values.

    Parameters
    ----------
    model : str
        A model of the runtime (docs/runtime.md). "auto" is the plainest of its kind.
    network : str
        "local://" trains in this process, by the same programs and to the same bytes as a chain
        would. The URL of a node trains on its chain, where validators re-run what a worker did.
    key : str or path, optional
        Who signs and pays: the name of a key in the key folder, or a key file. On a development
        chain the published test key `alice` unless said otherwise.
    password_file : path, optional
        File whose first line is the key's password. Secrets are never parameters.
    tier : str
        How much validators re-run: "economic", "audited", "covered:r" or "replicated".
    fee : int, optional
        Micro-credits that are held for the job; by default twice the least, at least 100,000.
    hidden_layer_sizes : int or sequence of int
        Widths of an "mlp".
    optimiser, learning_rate, alpha, epochs, batch_size
        As in job files (docs/job-file.md). `alpha` is the penalty: of a model that learns by
        gradient its weight decay. Left out, a batch is what suits the model.
    chunk : int, optional
        Steps between two committed states: what a validator re-runs at a time.
    segments : int
        Parts of the job that are assigned and paid one by one.
    options : dict, optional
        Further keys of the model and of the schedule, as {"schedule": "root", "warmup": 100}.
    random_state : int, RandomState or None
        Fixes the order of rows and the first weights: the same model here and on every chain. With
        None a chain draws them itself, from randomness that nobody could know before.
    timeout : float
        Seconds without any news after which waiting for a chain ends.
    verbose : bool or "auto"
        Whether fitting on a chain says how far it is; "auto" does to a terminal and in a notebook.

    Attributes
    ----------
    model_ : Model
        The fitted model as a file that is complete in itself: `model_.save("heart.model")`.
    receipt_ : LocalReceipt or ChainReceipt
        What is known about how it came about, to be verified.
    state_digest_ : str
        Digest of the last state: equal digests are equal models, bit for bit.
    n_iter_ : int
        Steps that were made.
    """

    _plain = ""

    def __init__(
        self,
        model: str = "auto",
        *,
        network: str = LOCAL,
        key: str | Path | None = None,
        password_file: str | Path | None = None,
        tier: str = "audited",
        fee: int | None = None,
        hidden_layer_sizes: int | Sequence[int] = (64,),
        optimiser: str = "adam",
        learning_rate: float = 0.02,
        alpha: float | None = None,
        epochs: int = 200,
        batch_size: int | None = None,
        chunk: int | None = None,
        segments: int = 1,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
        timeout: float = 120.0,
        verbose: bool | str = "auto",
    ) -> None:
        self.model = model
        self.network = network
        self.key = key
        self.password_file = password_file
        self.tier = tier
        self.fee = fee
        self.hidden_layer_sizes = hidden_layer_sizes
        self.optimiser = optimiser
        self.learning_rate = learning_rate
        self.alpha = alpha
        self.epochs = epochs
        self.batch_size = batch_size
        self.chunk = chunk
        self.segments = segments
        self.options = options
        self.random_state = random_state
        self.timeout = timeout
        self.verbose = verbose

    @property
    def _model_name(self) -> str:
        return self._plain if self.model == "auto" else self.model

    def _adopt(self, found: Fetched) -> None:
        self.model = found.plan.model

    def _recipe(self) -> Recipe:
        return Recipe(
            self._model_name,
            np.atleast_1d(self.hidden_layer_sizes).tolist(),
            self.optimiser,
            self.learning_rate,
            self.alpha,
            self.epochs,
            self.batch_size,
            self.chunk,
            self.segments,
            self.options or {},
        )
