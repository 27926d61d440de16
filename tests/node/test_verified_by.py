"""What a job's view says of who checked it, when a validator has been removed in between."""

from factories import GrowingChain, make_genesis

from mlchain.ledger.state import State
from mlchain.node.job_view import JobViews


def view(chain: GrowingChain, job_id: bytes) -> dict:
    names = {member.key: member.name for member in chain.genesis.members}
    state: State = chain.chain.state()
    return JobViews(names, lambda key: "").whole(state, job_id, chain.job(job_id), None)


def test_those_who_could_check_include_a_validator_removed_after_it_checked():
    chain = GrowingChain(make_genesis(4, 1))
    job_id = chain.submit()
    chain.start(job_id)
    chain.commit_segment(job_id)
    chain.finish_segment(job_id)
    chain.commit_segment(job_id)
    chain.accuse_falsely("validator-3", job_id)
    chain.finish_segment(job_id)
    assert len(chain.chain.validators) == 3, "one slash puts a validator out"
    verified = view(chain, job_id)["verified"]
    assert "validator-3" in verified["by"], "it checked the first segment"
    assert (len(verified["by"]), verified["of"]) == (4, 4)


def test_without_removals_those_who_could_check_are_all_validators():
    chain = GrowingChain(make_genesis(4, 1))
    verified = view(chain, chain.run_job())["verified"]
    assert (len(verified["by"]), verified["of"]) == (4, 4)
