"""How much is logged: set when the node starts, and changed by its operator while it runs."""

from __future__ import annotations

import logging

import structlog

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
"""Levels by name, the most talkative first."""


def set_log_level(name: str) -> None:
    """Log events of this level and above; what libraries say only from warnings on, or debug."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[name]))
    ours = logging.getLogger("mlchain")
    ours.setLevel(logging.DEBUG if name == "debug" else max(LEVELS[name], logging.WARNING))
