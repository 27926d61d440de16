"""`python -m mlchain` is the command `mlchain`; child processes are started this way."""

from mlchain.cli import main

if __name__ == "__main__":
    main()
