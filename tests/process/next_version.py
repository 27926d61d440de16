"""TEST ONLY. The next version of mlchain: one op more, protocol 2, and it knows the one before.

python -m process.next_version node …        run a command of it
python -m process.next_version digest        print the digest of its tables
"""

from __future__ import annotations

import sys
from importlib import import_module

from mlchain.cli import main
from mlchain.ml_runtime.op import OPS, register
from mlchain.vm import registry

VERSION = 2


def become_next() -> None:
    """Turn this process into one of the next version."""
    registry.OLDER = ((1, registry.registry_digest()),)
    registry.registry_digest.cache_clear()
    plain = type(OPS["add"])
    register(type("AddTwice", (plain,), {"name": "add_twice", "__doc__": "Adds, later."}))
    execute = import_module("mlchain.vm.execute")  # the families come first
    registry.PROTOCOL_VERSION = execute.PROTOCOL_VERSION = VERSION  # type: ignore[misc]


if __name__ == "__main__":
    become_next()
    if sys.argv[1:] == ["digest"]:
        print(registry.registry_digest().hex())
    else:
        sys.exit(main())
