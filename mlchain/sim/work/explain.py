"""Why nothing happens: who waits for what, in one message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlchain.ledger.commit import NIL
from mlchain.vm.families.jobs import JOBS, SEGMENTS, JobState, SegmentState

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place
    from mlchain.sim.work.world import World

STEPS = ("propose", "prevote", "precommit")


def explain(world: World) -> str:
    """Return where every honest validator stands, and what every job waits for."""
    lines = [_place(world, place) for place in world.honest("validator")]
    lines += [_job(world, job_id) for job_id in world.jobs]
    return "; ".join(lines)


def _place(world: World, place: Place) -> str:
    if place.node is None:
        return f"{place.name} is down"
    driver = place.node.agreement._driver
    current = driver._current
    assert current is not None
    engine = current.engine
    missing = [
        f"{len(engine.votes.cast_for(kind, engine.round, NIL))} nil"
        for kind in (1, 2)
        if engine.round >= 0
    ]
    last = world.refusals.get(place.name, "")
    where = f"{place.name} at {engine.height}/{engine.round} {STEPS[int(engine.step)]}"
    return (
        where
        + (f" ({', '.join(missing)} votes)" if missing else "")
        + (f" [{last}]" if last else "")
    )


def _job(world: World, job_id: bytes) -> str:
    place = next((p for p in world.honest("validator") if p.node is not None), None)
    if place is None or place.node is None:
        return "no honest validator is up"
    chain = place.node.chain
    state = chain.state()
    job = JOBS.get(state, job_id)
    if job is None:
        return f"job {job_id.hex()[:8]} is not on chain"
    words = (
        f"job {job_id.hex()[:8]} is {JobState(job.state).name}, {job.hard} of {job.segments} HARD"
    )
    segment = SEGMENTS.get(state, job_id, job.hard)
    if segment is None:
        return words
    names = {p.key: p.name for p in world.places}
    done = [a.validator for a in segment.attestations]
    missing = [names[key] for key in chain.validators.keys if key not in done]
    return (
        f"{words}, segment {job.hard} of {names[segment.worker]} attempt {segment.attempt} is "
        f"{SegmentState(segment.state).name} since {segment.undisputed_since} of {chain.height}, "
        f"not attested by {', '.join(missing) or 'nobody'}"
    )
