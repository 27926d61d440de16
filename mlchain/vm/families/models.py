"""Models: what settled jobs leave behind, and the registry of model files that can be asked.

A *model file* is registered by its content id. What the chain has to know of it (size, features,
gas of a row) is said by who registers it, and holds once validators have the file and found it so,
as with datasets. *Names* belong to who used them first; each registration under a name is its next
version, with its lineage and licence.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.codec import ContentId, Hash, Name, PublicKey, Record, Uint
from mlchain.consensus.work.attestation import Available
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import Mark, State, Table
from mlchain.ledger.validators import MAX_VALIDATORS, ValidatorSet
from mlchain.ml_runtime import Metrics
from mlchain.ml_runtime.model import MAX_MODEL_BYTES
from mlchain.ml_runtime.plan import MAX_FEATURES, MAX_OUTPUTS
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.families.data import get_held_weight, with_holder

REGISTER_GAS = 20_000
MAX_ROW_GAS = 10**10
MAX_VERSIONS = 256
MAX_EVALUATIONS = 64
HOLD_MS = 3_600_000
"""Chain time for which validators look for a file after a registration of it."""

ModelName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
MaybeContent = Annotated[bytes, Meta(max_length=36)]
"""Empty, or a content id."""
MaybeHash = Annotated[bytes, Meta(max_length=32)]
"""Empty, or 32 bytes."""
AnswerKind = Annotated[str, Meta(pattern=r"^(class|value|cluster|features)\Z")]


class Model(Record, frozen=True):
    """A trained model: `content` names its encoded state, `state` is the state's digest.

    Registered under the id of its job. `metrics` are those on the job's test rows.
    """

    name: Name
    owner: PublicKey
    plan: Hash
    dataset: ContentId
    content: ContentId
    state: Hash
    metrics: Metrics | None
    height: Uint
    revoked_height: Uint
    """0, or the height of the block that found a segment of its training forged."""


class Evaluation(Record, frozen=True):
    """What a quorum found a model file to be worth on the last rows of a registered dataset."""

    dataset: ContentId
    metrics: Metrics
    height: Uint


class ModelFile(Record, frozen=True):
    """A registered model file of `size` bytes, and the validators that hold and have examined it.

    `job` is empty, or the settled job whose model it is: validators that hold it have made it again
    from what the job left. `gas` is that of one row. Until `until_ms` of chain time validators
    that do not hold it look for it.
    """

    size: Uint
    features: Uint
    outputs: Uint
    answer: AnswerKind
    gas: Uint
    job: MaybeHash
    until_ms: Uint
    holders: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]
    evaluations: Annotated[tuple[Evaluation, ...], Meta(max_length=MAX_EVALUATIONS)]

    @property
    def facts(self) -> bytes:
        """The digest of what is said of it; who holds it says so of these facts alone."""
        said = (self.size, self.features, self.outputs, self.answer, self.gas, self.job)
        return crypto.digest("mlchain/model-facts", codec.encode(said))


class Owned(Record, frozen=True):
    """Who a name belongs to, and how many versions there are."""

    owner: PublicKey
    versions: Annotated[int, Meta(ge=1, le=MAX_VERSIONS)]


class Version(Record, frozen=True):
    """One version of a name. `parent` is the model file it came from, `data` what trained it."""

    content: ContentId
    parent: MaybeContent
    data: MaybeContent
    licence: Name
    height: Uint


MODELS = Table(b"model/", Model, bytes)
MODEL_FILES = Table(b"modelfile/", ModelFile, bytes)
NAMES = Table(b"name/", Owned, bytes)
"""By the name's bytes."""
VERSIONS = Table(b"version/", Version, int, bytes)
"""By the number of the version, from 1, and the name's bytes."""
UNHELD = Table(b"unheld/", Mark, int, bytes)
"""Files that not everybody holds yet, by `until_ms` and content id."""


class RegisterModel(Payload, frozen=True):
    """Publish a model file as the next version of a name; validators fetch and examine it."""

    KIND: ClassVar[int] = 30
    name: ModelName
    content: ContentId
    size: Annotated[int, Meta(ge=1, le=MAX_MODEL_BYTES)]
    features: Annotated[int, Meta(ge=1, le=MAX_FEATURES)]
    outputs: Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
    answer: AnswerKind
    gas: Annotated[int, Meta(ge=1, le=MAX_ROW_GAS)]
    job: MaybeHash
    parent: MaybeContent
    data: MaybeContent
    licence: Name

    def execute(self, ctx: Context) -> None:
        """Add the version; wrong facts of somebody else are replaced until a third holds the file.

        So neither a name nor a content id can be squatted with numbers that do not fit.
        """
        ctx.charge(REGISTER_GAS + self.size // 64)
        self._check_lineage(ctx)
        name = self.name.encode()
        owned = NAMES.get(ctx.state, name)
        number = owned.versions + 1 if owned else 1
        if owned is not None and owned.owner != ctx.sender:
            raise InvalidTransaction(f"the name {self.name} is somebody else's", "choose another")
        if number > MAX_VERSIONS:
            raise InvalidTransaction(f"{self.name} has {MAX_VERSIONS} versions", "choose another")
        before = VERSIONS.get(ctx.state, number - 1, name) if number > 1 else None
        if before is not None and before.content == self.content:
            raise InvalidTransaction("the last version of this name has the same content")
        self._put_file(ctx)
        NAMES.put(ctx.state, Owned(ctx.sender, number), name)
        version = Version(self.content, self.parent, self.data, self.licence, ctx.block.height)
        VERSIONS.put(ctx.state, version, number, name)
        ctx.emit(f"model {self.name} version {number}")

    def _check_lineage(self, ctx: Context) -> None:
        if any(len(content) not in (0, 36) for content in (self.parent, self.data)):
            raise InvalidTransaction("parent and data are content ids, or left out")
        if self.parent and MODEL_FILES.get(ctx.state, self.parent) is None:
            raise InvalidTransaction("the parent is not registered")
        if not self.job:
            return
        trained = MODELS.get(ctx.state, self.job) if len(self.job) == 32 else None
        if trained is None or trained.revoked_height:
            raise InvalidTransaction("no job with this id has a model")
        if trained.owner != ctx.sender:
            raise InvalidTransaction("the job was somebody else's")

    def _put_file(self, ctx: Context) -> None:
        until_ms, voters = ctx.block.time_ms + HOLD_MS, ctx.block.validators
        file = ModelFile(
            self.size, self.features, self.outputs, self.answer, self.gas, self.job, until_ms,
            (), (),
        )  # fmt: skip
        known = MODEL_FILES.get(ctx.state, self.content)
        if known is not None:
            if known.facts == file.facts:
                file = replace(known, until_ms=until_ms)
            elif is_confirmed(known, voters):
                raise InvalidTransaction(
                    "this content id is registered with other numbers",
                    f"{known.size} bytes, {known.features} features, {known.gas} gas a row",
                )
            UNHELD.delete(ctx.state, known.until_ms, self.content)
        MODEL_FILES.put(ctx.state, file, self.content)
        if not _is_held_by_all(file, voters):
            UNHELD.put(ctx.state, Mark(), until_ms, self.content)


def add_model_holder(
    state: State, said: Available, validator: bytes, validators: ValidatorSet
) -> None:
    """Note that a validator holds a model file; unknown ones, and other facts, are ignored."""
    file = MODEL_FILES.get(state, said.content)
    if file is None or file.facts != said.facts or validator in file.holders:
        return
    file = replace(file, holders=with_holder(file.holders, validator, validators))
    MODEL_FILES.put(state, file, said.content)
    if _is_held_by_all(file, validators):
        UNHELD.delete(state, file.until_ms, said.content)


def forget_unheld(block: BlockContext) -> None:
    """Look no longer for what was not found in time; to register it again begins anew."""
    for (until_ms, content), _ in UNHELD.items(block.state):
        if until_ms >= block.time_ms:
            break
        UNHELD.delete(block.state, until_ms, content)


def is_usable(file: ModelFile, validators: ValidatorSet) -> bool:
    """Tell whether a quorum of the present validators holds a model file."""
    return get_held_weight(file.holders, validators) >= validators.quorum


def is_confirmed(file: ModelFile, validators: ValidatorSet) -> bool:
    """Tell whether an honest one of the present validators holds a model file."""
    return get_held_weight(file.holders, validators) >= validators.third


def _is_held_by_all(file: ModelFile, validators: ValidatorSet) -> bool:
    return get_held_weight(file.holders, validators) == validators.total


def add_evaluation(state: State, content: bytes, evaluation: Evaluation) -> None:
    """Keep what a model file is worth; the last one on the same dataset and rows replaces it."""
    file = MODEL_FILES.get(state, content)
    assert file is not None, "only registered models are evaluated"
    key = evaluation.dataset, evaluation.metrics.total
    others = [e for e in file.evaluations if (e.dataset, e.metrics.total) != key]
    kept = (*others[-MAX_EVALUATIONS + 1 :], evaluation)
    MODEL_FILES.put(state, replace(file, evaluations=kept), content)
