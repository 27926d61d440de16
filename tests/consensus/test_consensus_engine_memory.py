"""What the engine forgets, what it must not, and what it continues with after a crash."""

from engine_play import Play, id_of, vote_of

from mlchain.consensus.actions import Snapshot
from mlchain.consensus.engine import KEEP_BLOCKS, KEEP_ROUNDS, MAX_PROPOSALS
from mlchain.ledger.commit import NIL, VoteKind

PREVOTE, PRECOMMIT = VoteKind.PREVOTE, VoteKind.PRECOMMIT


def go_to(play: Play, round_: int) -> None:
    play.tell(f"at ab {round_}")
    assert play.engine.round == round_


def test_votes_of_rounds_long_past_are_dropped() -> None:
    play = Play("d")
    play.tell("prevote ab 0 Y")
    play.tell("prevote ab 1 Y")
    go_to(play, KEEP_ROUNDS + 1)
    assert play.engine.votes.tallies() == [(1, PREVOTE, id_of("Y"))]
    assert not play.engine.keeps_votes_of(0)
    assert play.engine.keeps_votes_of(1)


def test_votes_and_block_of_the_lock_are_kept_for_ever() -> None:
    play = Play("d")
    play("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > prevote ab 0 X
        wait prevote 0 500
        precommit 0 X
    """)
    go_to(play, 1000)
    assert len(play.engine.votes.cast_for(PREVOTE, 0, id_of("X"))) == 3
    assert play.engine.knows(id_of("X"))
    assert play.engine.keeps_votes_of(0)


def test_a_valid_value_can_be_proposed_however_late() -> None:
    play = Play("d")
    play("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > timeout prevote 0
        precommit 0 nil
        > prevote ab 0 X
        > at ab 999
        wait propose 999 1250
        propose 999 X pol 0
        prevote 999 X
    """)


def test_blocks_of_rounds_past_are_dropped_unless_a_quorum_precommitted_them() -> None:
    play = Play("d")
    play.tell("proposal 0 X")
    play.tell("proposal 0 Y")
    play.tell("precommit abc 0 Y")  # not decided: its verdict is not known yet
    go_to(play, KEEP_BLOCKS + 2)
    assert not play.engine.knows(id_of("X"))
    assert play.engine.knows(id_of("Y"))
    assert "decide 0 Y" in play.tell("valid Y")


def test_a_proposer_gets_two_proposals_in_a_round_and_more_only_if_others_vote_for_them() -> None:
    play = Play("d")
    assert MAX_PROPOSALS == 2
    assert play.tell("proposal 0 X") != ["not admitted"]
    assert play.tell("proposal 0 X") == ["not admitted"]
    assert play.tell("proposal 0 Y") != ["not admitted"]
    assert play.tell("proposal 0 Z") == ["not admitted"]
    play.tell("prevote a 0 Z")
    assert play.tell("proposal 0 Z") == ["not admitted"], "one of four may be the liar"
    play.tell("prevote b 0 Z")
    assert play.tell("proposal 0 Z") != ["not admitted"]


def test_an_old_proposal_is_taken_only_if_more_than_a_third_voted_for_it() -> None:
    play = Play("d")
    go_to(play, 9)
    assert play.tell("proposal 0 X") == ["not admitted"]
    play.tell("precommit ab 0 X")
    assert play.tell("proposal 0 X") != ["not admitted"]


def test_nil_is_no_block_that_one_could_know() -> None:
    assert not Play("d").engine.knows(NIL)


def test_the_snapshot_holds_round_step_lock_and_valid_value() -> None:
    play = Play("d")
    play("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > prevote ab 0 X
        wait prevote 0 500
        precommit 0 X
        > at ab 1
        wait propose 1 1100
        > timeout propose 1
        prevote 1 nil
    """)
    height = play.engine.height
    wanted = Snapshot(height, 1, PREVOTE, 0, id_of("X"), 0, id_of("X"))
    assert play.engine.snapshot() == wanted


def test_a_restored_engine_keeps_its_lock_and_does_not_vote_twice() -> None:
    play = Play("d")
    play.engine.restore(Snapshot(play.engine.height, 2, PREVOTE, 0, id_of("X"), 0, id_of("X")))
    play("""
        = round 2 prevote, locked 0 X, valid 0 X
        > proposal 2 Y
        > valid Y
        > timeout propose 2
        = round 2 prevote, locked 0 X, valid 0 X
        > at ab 4
        wait propose 4 1250
        > proposal 4 Y
        prevote 4 nil
    """)


def test_an_engine_restored_in_its_propose_step_waits_for_a_proposal_again() -> None:
    play = Play("d")
    play.engine.restore(Snapshot(play.engine.height, 1, 0, -1, NIL, -1, NIL))
    play("""
        > demand
        wait propose 1 1100
        > timeout propose 1
        prevote 1 nil
    """)


def test_a_restored_engine_uses_the_votes_it_is_given_back() -> None:
    play = Play("d")
    for voter in "abc":
        play.engine.add_vote(vote_of(voter, PRECOMMIT, 1, "X", play.engine.height))
    play.engine.restore(Snapshot(play.engine.height, 2, PRECOMMIT, 1, id_of("X"), 1, id_of("X")))
    play("""
        > proposal 1 X
        check X
        > valid X
        decide 1 X
    """)
