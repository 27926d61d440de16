"""`mlchain demo`: a network, a job, the proof, and nothing left behind."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlchain.cli import process
from mlchain.cli.audit import AuditView
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.errors import ConfigError, VerificationFailed
from mlchain.web.answers import FaultRow, JobView

if TYPE_CHECKING:
    from mlchain.client.client import Client

VALIDATORS, WORKERS = 4, 2
CHEATS = {
    "worker": {"worker-1": "skip:0.02"},
    "validator": {"validator-2": "lie"},
}
"""Which nodes misbehave, and how, by what `--cheat` names."""
READY_S = 120.0
AUDIT_SLICES = 100
PATIENCE_S = 180.0


class Demonstrated(JobView):
    """The demo's job, its audit, and what those who misbehaved were punished for."""

    audit: AuditView
    found: list[FaultRow]


@click.command(
    "demo",
    cls=Command,
    answers={"demo": Demonstrated},
    examples=("mlchain demo", "mlchain demo --cheat", "mlchain demo --keep"),
)
@click.option(
    "--cheat",
    type=click.Choice(tuple(CHEATS)),
    is_flag=False,
    flag_value="worker",
    help="Let a worker skip work, or a validator vote twice and accuse wrongly: watch it found.",
)
@click.option(
    "--job",
    "job_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Another job file than examples/digits.toml.",
)
@click.option("--keep", is_flag=True, help="Keep the folder with keys, blocks and logs.")
@click.pass_obj
def command(out: Output, cheat: str | None, job_path: Path | None, keep: bool) -> None:
    """Train one job on a temporary local network and prove the result.

    4 validators and 2 workers as 6 processes on free ports of this machine. Everything is stopped
    at the end, also after ctrl-c or a failure.
    """
    job_path = job_path or _example()
    folder = Path(tempfile.mkdtemp(prefix="mlchain-demo-"))
    from mlchain.cli.localnet import LocalNet

    net: Any = None
    is_done = False
    try:
        with process.orderly_end():
            out.note(f"making a chain: {VALIDATORS} validators, {WORKERS} workers, 6 processes")
            cheats = CHEATS[cheat] if cheat else {}
            net = LocalNet.create(folder, VALIDATORS, WORKERS, None, cheats)
            for name, kind in cheats.items():
                out.note(f"{name} will misbehave: {kind}")
            net.start(is_tied=True)
            net.wait_ready(READY_S, out.live)
            _run_job(out, net, job_path, cheats)
            is_done = True
    finally:
        out.end_live()
        if net is not None:
            net.stop()
        if keep or not is_done:
            out.note(f"logs and blocks are in {folder}")
        elif net is not None:
            net.remove()


def _run_job(out: Output, net: Any, job_path: Path, cheats: dict[str, str]) -> None:
    from mlchain.cli.audit import audit_file, report_document, report_lines
    from mlchain.cli.signing import load_signer
    from mlchain.cli.submit import submit
    from mlchain.cli.text import fault_lines, good, short
    from mlchain.cli.watch import result_lines, watch_job
    from mlchain.client.client import Client
    from mlchain.client.jobfile import load_job_file
    from mlchain.client.userfile import write_file
    from mlchain.ledger.genesis import load_genesis

    job_file = load_job_file(job_path)
    with Client(net.url) as client:
        status = client.status()
        out.note(good(f"chain     {status['chain_id']}  genesis {short(status['genesis'])}"))
        key_file = str(net.folder / "keys" / "alice.json")
        name, key = load_signer(str(status["chain_id"]), key_file, net.folder, None)
        identity = submit(client, job_file, key, name, out, PATIENCE_S)
        job = watch_job(client, identity, out, PATIENCE_S)
        receipt = net.folder / "job.receipt"
        write_file(receipt, client.receipt(identity))
        faults = _faults(client, job, cheats)
    out.note("")
    out.note("audit of the receipt, offline:")
    audit = audit_file(out, receipt, load_genesis(net.genesis), AUDIT_SLICES)
    if audit.failed is not None:
        raise VerificationFailed(f"audit: {audit.failed.name}: {audit.failed.text}")
    if cheats and not faults:
        raise VerificationFailed(f"{', '.join(cheats)} misbehaved and was not found")
    lines = [*result_lines(job), "", *report_lines(audit)]
    if cheats:
        lines += ["", *fault_lines(faults, job)]
    out.result("demo", {**job, "audit": report_document(audit), "found": faults}, lines)


def _faults(client: Client, job: dict[str, Any], cheats: dict[str, str]) -> list[dict[str, Any]]:
    """Return what those who misbehaved were punished for, in this job or as validators."""
    known = list(job["faults"])
    for member in client.validators():
        known += [fault for fault in member["faults"] if fault not in known]
    return [fault for fault in known if fault["offender"] in cheats]


def _example() -> Path:
    path = Path(__file__).parents[2] / "examples" / "digits.toml"
    if not path.exists():
        raise ConfigError("examples/digits.toml is not here", "name a job file with --job")
    return path


if __name__ == "__main__":
    from mlchain.cli import main

    main(["demo", *sys.argv[1:]])
