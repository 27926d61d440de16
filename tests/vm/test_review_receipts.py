"""What stands in a receipt is the same on every node, whatever Python and libraries it runs.

Receipts are hashed into the header. The text of an error may quote what a sender wrote, and how
Python quotes a character depends on its Unicode tables: 3.11 writes U+11F00 as an escape, 3.12 as
itself. The text of a decoder depends on its version.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import JOB, World, plan

from mlchain import codec


def refusal(**changes: object) -> str:
    world = World()
    world.running()
    receipt = world.do("alice", replace(JOB, **changes))
    assert receipt.code != "ok"
    return receipt.message


@pytest.mark.parametrize("letter", ["\U00011f00", "é", "\x85", "\u0378"])
def test_what_a_sender_wrote_is_quoted_in_ascii(letter):
    assert refusal(tier=letter).startswith("unknown tier " + ascii(letter))


def test_the_escape_is_the_one_of_an_older_python():
    """A Python that does not know a character writes the escape itself: the same text."""
    escape = ascii("\U00011f00")
    assert escape == "'" + "\U00011f00".encode("ascii", "backslashreplace").decode() + "'"


@pytest.mark.parametrize("junk", [b"", b"\x93\x01", codec.encode("text"), plan().encode() + b"x"])
def test_no_decoder_speaks_in_a_receipt(junk):
    assert refusal(plan=junk) == "plan: too large, or not the canonical encoding of one"
