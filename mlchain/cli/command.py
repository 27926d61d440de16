"""The two click classes all our commands are made of, and where their defaults come from.

A value is taken from the first of: the flag, the variable `MLCHAIN_<COMMAND>_<OPTION>`,
`./mlchain.toml`, `~/.config/mlchain/config.toml`, the built-in default. In a file, keys at the top
hold for every command that has such an option, and a table `[submit-job]` for that command only.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mlchain.errors import ConfigError

SHARED_KEYS = ("url", "key", "keys_dir", "password_file")
"""Options that several commands have and that may stand at the top of a configuration file."""


class Command(click.Command):
    """A command with `--json`, `-q`, `-v`, an example in its help, and configurable defaults.

    `answers` says what `data` may be with `--json`: a TypedDict by the name of its schema, the one
    that `Output.result` is called with. `mlchain schema` shows them.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        answers: Mapping[str, type] | None = None,
        has_config: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("epilog", _example_text(examples))
        super().__init__(*args, **kwargs)
        self.answers = dict(answers or {})
        self.has_config = has_config  # a node reads the files itself: it has more keys than flags
        self.params += [_json_option(), _flag("-q", "--quiet", "No progress, only the result.")]
        self.params += [_flag("-v", "--verbose", "Say more; errors show where they arose.")]

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        """Parse `args` with the defaults of the configuration files in place."""
        if self.has_config and parent is not None and info_name is not None:
            path = (*parent.command_path.split()[1:], info_name)
            known = [p.name for p in self.params if p.name is not None]
            extra.setdefault("default_map", configured_defaults(path, known))
        return super().make_context(info_name, args, parent, **extra)


class Group(click.Group):
    """A group of commands that prints its help when called alone and suggests on a typing error."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("epilog", _example_text(examples))
        super().__init__(*args, **kwargs)
        self.params.append(_json_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the sub-command; called with nothing at all, print the help."""
        if not args:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the named command, or say which one was probably meant."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{name}'.{meant}", ctx)
        return super().resolve_command(ctx, args)


def configured_defaults(path: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Return the defaults that the configuration files hold for the command named by `path`.

    Raises:
        ConfigError: unreadable file, or a key the command does not have.
    """
    merged: dict[str, Any] = {}
    for file in (user_config_path(), Path("mlchain.toml")):  # the later one wins
        document = _read_config(file)
        for key in (k for k, v in document.items() if not isinstance(v, dict)):
            if key.replace("-", "_") not in SHARED_KEYS:
                raise ConfigError(
                    f"{file}: {key}: not a setting for all commands",
                    "only " + ", ".join(SHARED_KEYS) + "; others go in a table, as [submit-job]",
                )
        merged |= {k.replace("-", "_"): v for k, v in document.items() if not isinstance(v, dict)}
        table: Any = document
        for name in path:
            table = table.get(name, {}) if isinstance(table, dict) else {}
        for key, value in table.items() if isinstance(table, dict) else ():
            option = key.replace("-", "_")
            if option not in known:
                raise ConfigError(f"{file}: [{'.'.join(path)}] {key}: no such option")
            merged[option] = value
    return {key: value for key, value in merged.items() if key in known}


def user_config_path() -> Path:
    """Return where the user's own configuration file is, whether or not it exists."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "mlchain" / "config.toml"


def data_path() -> Path:
    """Return the folder for keys, chains and test networks."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "mlchain"


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    import tomllib  # after the check: most runs have no file, and the start should be quick

    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _json_option() -> click.Option:
    """Only documents the flag: the root reads it from the arguments, so errors obey it too."""
    return click.Option(
        ["--json"], is_flag=True, expose_value=False, help="One JSON document on stdout."
    )


def _flag(short: str, long: str, text: str) -> click.Option:
    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            setattr(context.find_root().obj, long.strip("-"), True)

    return click.Option(
        [short, long], is_flag=True, expose_value=False, help=text, callback=remember
    )


def _example_text(examples: Sequence[str]) -> str:
    return "\b\n" + "\n".join(["Example:", *(f"  {line}" for line in examples)]) if examples else ""
