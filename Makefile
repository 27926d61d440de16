# Short names for the scripts; they make the environment they need.
.PHONY: setup check test slow demo clean

setup:
	scripts/setup

check test:
	scripts/test

slow:
	scripts/test --slow

demo:
	scripts/demo

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
