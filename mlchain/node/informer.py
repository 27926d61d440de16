"""Elements of hash chains that are shown here before their time: this validator reports them.

An element is its own proof, whoever sent it. It can be seen in precommits for heights that nobody
can vote on yet: only who gives its secrets away signs such. A node that is itself behind sees
honest ones; by the time it has caught up they are due, and nothing is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from mlchain.consensus.messages import decode_message
from mlchain.consensus.work.attestation import decode_extension
from mlchain.consensus.work.custody import key_due
from mlchain.consensus.work.tickets import BEACON, CUSTODY, PURPOSES, check_reveal
from mlchain.errors import MlchainError
from mlchain.ledger.commit import Vote
from mlchain.ledger.state import State
from mlchain.node.chain import Chain
from mlchain.node.outbox import Outbox
from mlchain.vm.families.announcements import find_announcement
from mlchain.vm.families.renewal import known_element
from mlchain.vm.families.reports import ReportReveal, latest_due

log = structlog.get_logger("informer")

MAX_REPORTS = 16
"""Elements that are being reported at a time."""
MAX_HASHES = 2_000
"""How far ahead of what is public an element may be; to look further is not worth the hashes."""


@dataclass
class Informer:
    """One validator's watch over the secrets of the others."""

    key: bytes
    chain: Chain
    outbox: Outbox
    _reports: dict[tuple[bytes, int], ReportReveal] = field(default_factory=dict)
    """By validator and purpose: one is enough."""

    def look(self, frame: bytes) -> None:
        """Look at a message about another height than ours; it may be anything."""
        try:
            vote = decode_message(frame)
            if not isinstance(vote, Vote) or vote.height <= self.chain.height + 1:
                return
            shown = decode_extension(vote.extension)
        except MlchainError:
            return
        due = key_due(vote.height, self.chain.params.attest_window)
        self._note(vote.validator, BEACON, vote.height, shown.beacon)
        self._note(vote.validator, CUSTODY, due, shown.custody)

    def _note(self, validator: bytes, purpose: str, height: int, element: bytes) -> None:
        place = (validator, PURPOSES.index(purpose))
        is_asked = validator in self.chain.validators and validator != self.key
        if not is_asked or place in self._reports or len(self._reports) >= MAX_REPORTS:
            return
        state, length = self.chain.state(), self.chain.params.ticket_heights
        known = known_element(state, validator, purpose, height, length)
        if known is None or not 0 < height - known.height <= MAX_HASHES:
            return
        if check_reveal(known, element, height) is not None:
            log.warning("shown-early", validator=validator.hex()[:8], height=height)
            self._reports[place] = ReportReveal(*place, height, element, 0)

    async def press(self, state: State) -> None:
        """Announce what was seen, and show it, until its owner is out."""
        for place, report in list(self._reports.items()):
            announced = find_announcement(state, self.key, report)
            at = self.chain.height + 1 if announced is None else announced
            is_early = report.height > latest_due(report.purpose, at, self.chain.params)
            if is_early and report.validator in self.chain.validators:
                self.outbox.send_announced(report)
            else:
                del self._reports[place]
