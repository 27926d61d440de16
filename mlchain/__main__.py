"""`python -m mlchain` is the command `mlchain`; children are started this way, never through PATH."""

from mlchain.cli import main

if __name__ == "__main__":
    main()
