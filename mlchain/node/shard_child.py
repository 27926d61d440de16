"""A process that runs shards: frames on stdin, answers on stdout, until whoever started it ends.

Run as `python -m mlchain.node.shard_child` by `executor_processes`.
"""

from __future__ import annotations

import signal
from contextlib import suppress

from mlchain.node.compute_child import read_ahead, take_pipes
from mlchain.node.compute_wire import HEADER
from mlchain.node.rounding import restore_rounding
from mlchain.node.shard_server import ShardServer


def main() -> None:
    """Serve stdin and stdout until the parent is gone."""
    requests, answers = take_pipes()
    restore_rounding()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which decides
    server = ShardServer()
    with suppress(BrokenPipeError):
        for request in read_ahead(requests):
            pieces = server.pieces(request)
            answers.write(HEADER.pack(sum(map(len, pieces))))
            for piece in pieces:
                answers.write(piece)
            answers.flush()


if __name__ == "__main__":
    main()
