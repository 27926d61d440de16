"""Configuration: flag, variable, local file, user's file, default; every error says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlchain.errors import ConfigError
from mlchain.ml_runtime.backends import BACKENDS
from mlchain.node.config import BACKEND_NAMES, KEYS, MAX_CONFIG_BYTES, Address, Config, load_config


@pytest.fixture
def places(tmp_path):
    here, user = tmp_path / "here", tmp_path / "user"
    here.mkdir()
    (user / ".config" / "mlchain").mkdir(parents=True)
    return here, user


def load(places, flags=None, environ=None) -> Config:
    return load_config(flags or {}, environ or {}, *places)


def test_without_any_setting_everything_has_a_place_in_the_home_folder(places):
    config = load(places)
    home = places[1] / ".local" / "share" / "mlchain" / "node"
    assert config.home == home
    assert config.genesis == home / "genesis.json"
    assert config.validator_key == home / "keys" / "validator.json"
    assert config.worker_key == home / "keys" / "worker.json"
    assert config.peer_key == home / "keys" / "peer.json"
    assert (config.data, config.content, config.wal) == (
        home / "data",
        home / "content",
        home / "wal",
    )
    assert config.p2p_listen.is_loopback and config.http_listen.is_loopback
    assert config.password_file is None


def test_each_source_outranks_the_next(places):
    here, user = places
    sources = [
        lambda: (user / ".config/mlchain/config.toml").write_text('[node]\nlog_format = "json"\n'),
        lambda: (here / "mlchain.toml").write_text('[node]\nlog_format = "text"\n'),
        lambda: environ.update(MLCHAIN_LOG_FORMAT="json"),
        lambda: flags.update(log_format="text"),
    ]
    flags: dict = {"log_format": None}
    environ: dict = {"MLCHAIN_LOG_FORMAT": ""}
    seen = [load(places, flags, environ).log_format]
    for add_source in sources:
        add_source()
        seen.append(load(places, flags, environ).log_format)
    assert seen == ["text", "json", "text", "json", "text"]


def test_a_path_is_relative_to_where_it_was_written(places):
    here, user = places
    (user / ".config/mlchain/config.toml").write_text('[node]\ngenesis = "g.json"\n')
    (here / "mlchain.toml").write_text('[node]\nhome = "../elsewhere"\n')
    config = load(places, {"peer_key": Path("p.json")}, {"MLCHAIN_WORKER_KEY": "/w.json"})
    assert config.genesis == user / ".config/mlchain/g.json"
    assert config.home == here / "../elsewhere"
    assert config.peer_key == here / "p.json"
    assert config.worker_key == Path("/w.json")
    assert config.validator_key == config.home / "keys/validator.json"


def test_the_standard_folders_of_the_desktop_are_honoured(places, tmp_path):
    config = load(places, environ={"XDG_DATA_HOME": str(tmp_path)})
    assert config.home == tmp_path / "mlchain" / "node"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:1", Address("0.0.0.0", 1)),
        ("[::1]:65535", Address("::1", 65535)),
        ("node-1.example:0", Address("node-1.example", 0)),
    ],
)
def test_addresses_read_back_as_they_are_written(places, text, address):
    assert load(places, {"p2p_listen": text}).p2p_listen == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", ":1", "host", "host:", "host:65536", "host:-1", "host:²"])
def test_what_is_not_an_address_is_refused(places, text):
    with pytest.raises(ConfigError, match="--p2p-listen"):
        load(places, {"p2p_listen": text})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[node]\nhttp_lisen = 'x'\n", "node.http_lisen: no such key"),
        ("[node]\nhttp_listen = 8645\n", "node.http_listen: expected text, not 8645"),
        ("[node]\nhttp_listen = 'nowhere'\n", "node.http_listen: 'nowhere' is not host:port"),
        ("[node]\nlog_format = 'xml'\n", "node.log_format: 'xml' is none of text, json"),
        ("[node]\nexecutor = 'gpu'\n", "node.executor: 'gpu' is no place to compute"),
        ("[node]\nbackend = 'jax'\n", "node.backend: 'jax' is none of numpy, numba, torch"),
        ("node = 1\n", "node: expected a table"),
        ("[node\n", "not TOML"),
        ("[node]\nhome = '\x00'\n", "not TOML"),
        ("#" * (MAX_CONFIG_BYTES + 1), "larger than"),
    ],
)
def test_an_error_names_the_file_and_the_key(places, text, complaint):
    file = places[0] / "mlchain.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(places)
    assert caught.value.message.startswith(f"{file}: {complaint}")


def test_a_misspelt_key_is_answered_with_the_right_one(places):
    (places[0] / "mlchain.toml").write_text("[node]\nhttp_lisen = 'x'\n")
    with pytest.raises(ConfigError) as caught:
        load(places)
    assert caught.value.hint == "did you mean http_listen?"


def test_an_unreadable_file_is_an_error_and_not_a_missing_one(places):
    (places[0] / "mlchain.toml").mkdir()
    with pytest.raises(ConfigError, match=r"mlchain\.toml: Is a directory"):
        load(places)


def test_a_bad_variable_is_named(places):
    with pytest.raises(ConfigError, match="MLCHAIN_LOG_FORMAT: 'xml'"):
        load(places, environ={"MLCHAIN_LOG_FORMAT": "xml"})


def test_the_tables_of_commands_are_left_alone(places):
    (places[0] / "mlchain.toml").write_text(
        "url = 'x'\n[submit-job]\nfee = 3\n[node.start]\nx = 1\n"
    )
    assert load(places) == load((places[1], places[1]))


def test_a_chain_with_published_keys_stays_on_this_machine(places):
    for key in ("p2p_listen", "http_listen"):
        open_to_all = load(places, {key: "0.0.0.0:1"})
        with pytest.raises(ConfigError, match=f"{key}: 0.0.0.0:1 is open to other machines"):
            open_to_all.check_exposure("dev-1")
        open_to_all.check_exposure("clinic-1")
    load(places).check_exposure("dev-1")
    load(places, {"http_listen": "localhost:1"}).check_exposure("dev-1")


def test_a_node_may_use_every_backend_but_the_one_for_tests():
    assert (*BACKEND_NAMES, "torch:cpu") == tuple(BACKENDS)


def test_every_key_can_be_set_by_variable(places):
    texts = {key: "127.0.0.1:9" if key.endswith("listen") else f"/{key}" for key in KEYS}
    texts["log_format"], texts["executor"] = "json", "processes:4"
    texts |= {"backend": "numba", "sync": "blocks", "snapshot_every": "50", "keep_blocks": "500"}
    texts |= {"trust": "7:" + "ab" * 32, "recheck": "on", "content_quota": "20GB"}
    config = load(places, environ={f"MLCHAIN_{key.upper()}": texts[key] for key in KEYS})
    found = {key: str(getattr(config, key)) for key in KEYS}
    assert found == {**texts, "trust": str((7, b"\xab" * 32)), "recheck": "True"} | {
        "content_quota": "20000000000"
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sync", "fast"), ("trust", "7"), ("trust", "x:00"), ("trust", f"0:{'00' * 32}"),
        ("keep_blocks", "99"), ("keep_blocks", "-1"), ("snapshot_every", "often"),
        ("content_quota", "much"), ("content_quota", "-1"), ("content_quota", "1.5GB"),
    ],
)  # fmt: skip
def test_how_to_catch_up_and_what_to_keep_are_checked(places, key, value):
    with pytest.raises(ConfigError, match=f"--{key.replace('_', '-')}"):
        load(places, {key: value})


def test_by_default_everything_is_kept_and_new_nodes_look_for_a_snapshot(places):
    config = load(places)
    assert (config.sync, config.keep_blocks, config.snapshot_every) == ("auto", 0, None)
    assert load(places, {"keep_blocks": "all"}).keep_blocks == 0


def test_a_quota_of_content_is_in_bytes_or_larger_units(places):
    for text, size in (("0", 0), ("700", 700), ("5MB", 5_000_000), ("2 T", 2 * 10**12)):
        assert load(places, {"content_quota": text}).content_quota == size
    assert load(places).content_quota == 0
