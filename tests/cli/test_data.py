"""`mlchain data`: files by content id, checked on this side whatever a node says."""

import hashlib
import json
from pathlib import Path

import pytest
from fake_node import serve, serve_file

from mlchain.ledger import unixfs

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/ledger/cids.json").read_text())[
    "vectors"
]
ROWS = b"a,b\n1,2\n3,4\n"


def cid_of(data: bytes, profile: str = "kubo-cli") -> str:
    return unixfs.cid_text(unixfs.cid_of(data, profile))


NOBODY = {"registered": False, "available": False, "holders": [], "validators": 4}


@pytest.fixture
def rows(home):
    (home / "rows.csv").write_bytes(ROWS)
    return "rows.csv"


@pytest.fixture
def store(node):
    """A node that takes any file and serves it."""

    def put(body):
        profile = node.requests[-1][0].rpartition("=")[2]
        cid = serve_file(node, body, profile)
        info = {"cid": cid, "size": len(body), "profile": profile, "whole": True, "pinned": False}
        node.routes[f"GET /v1/data/{cid}/info"] = info
        node.routes[f"GET /v1/data/{cid}/draws"] = {"draws": []}
        node.routes[f"GET /v1/data/{cid}/holders"] = NOBODY
        return info

    node.routes["POST /v1/data"] = put
    return node


@pytest.mark.parametrize("profile", unixfs.LAYOUTS)
@pytest.mark.parametrize("vector", VECTORS[:4], ids=lambda vector: str(vector["size"]))
def test_id_prints_the_id_and_the_line_that_gives_it_with_ipfs(run, home, vector, profile):
    size = vector["size"]
    (home / "x").write_bytes(hashlib.shake_256(b"mlchain-cid-v1:%d" % size).digest(size))
    lines = run("data", "id", "x", "--profile", profile).stdout.splitlines()
    assert lines[0] == vector[profile]
    assert lines[1].strip().startswith("ipfs add --cid-version 1 --raw-leaves")
    assert ("size-1048576" in lines[1]) == (profile == "unixfs-v1-2025")


def test_a_file_that_is_not_there_is_said_so(run):
    result = run("data", "id", "nothing")
    assert result.exit_code == 2 and "nothing" in result.stderr


@pytest.mark.parametrize("profile", unixfs.LAYOUTS)
def test_what_is_added_comes_back(run_json, home, store, profile):
    data = bytes(range(256)) * 5000
    (home / "x").write_bytes(data)
    code, added = run_json("data", "add", "x", "--url", store.url, "--profile", profile)
    cid = added["data"]["cid"]
    assert (code, cid, added["data"]["size"]) == (0, cid_of(data, profile), len(data))
    code, got = run_json("data", "get", cid, "-o", "back", "--url", store.url)
    assert (code, got["data"]["profile"]) == (0, profile)
    assert (home / "back").read_bytes() == data
    assert run_json("data", "verify", cid, "--url", store.url)[0] == 0
    assert run_json("data", "show", cid, "--url", store.url)[1]["data"]["whole"] is True
    assert sorted(path.name for path in home.iterdir() if path.is_file()) == ["back", "x"]


def test_cat_writes_the_bytes_alone(run, run_json, store, rows):
    cid = run("data", "add", rows, "--url", store.url).stdout.split()[0]
    assert run("data", "cat", cid, "--url", store.url).stdout_bytes == ROWS
    assert run_json("data", "cat", cid, "--url", store.url)[1]["data"]["text"] == ROWS.decode()


def test_a_node_that_serves_other_bytes_is_refused_and_nothing_is_kept(run, home, store, rows):
    cid = cid_of(ROWS)
    store.routes[f"GET /v1/data/{cid}/block"] = ROWS.replace(b"1", b"7")
    (home / "back").write_text("as before")
    for command in (("get", cid, "-o", "back"), ("cat", cid), ("verify", cid)):
        result = run("data", *command, "--url", store.url)
        assert result.exit_code == 7 and f"other bytes than {cid}" in result.stderr
        assert result.stdout == ""
    assert (home / "back").read_text() == "as before"
    assert not [path for path in home.iterdir() if "back." in path.name]


def test_a_node_that_gives_a_file_another_name_is_refused(run, store, rows):
    store.routes["POST /v1/data"] = {"cid": cid_of(b"other"), "size": 3}
    result = run("data", "add", rows, "--url", store.url)
    assert result.exit_code == 7 and "the node names the data" in result.stderr


def test_verify_compares_a_file_without_a_node(run, rows):
    assert run("data", "verify", cid_of(ROWS), rows).exit_code == 0
    result = run("data", "verify", cid_of(b"other"), rows)
    assert result.exit_code == 7 and "rows.csv holds other bytes" in result.stderr


@pytest.mark.parametrize("command", ["get", "cat", "show", "verify"])
def test_what_is_no_content_id_or_not_there_is_said_so(run, store, command):
    assert run("data", command, "QmNope", "--url", store.url).exit_code == 2
    assert run("data", command, cid_of(b"not there"), "--url", store.url).exit_code == 3


@pytest.mark.parametrize("profile", unixfs.LAYOUTS)
def test_a_car_file_holds_the_blocks_and_gives_the_file_back(run_json, home, store, profile):
    data = hashlib.shake_256(b"x").digest(1_200_000)
    (home / "x").write_bytes(data)
    code, made = run_json("data", "export", "x", "-o", "x.car", "--profile", profile)
    assert (code, made["data"]["cid"]) == (0, cid_of(data, profile))
    code, read = run_json("data", "import", "x.car", "-o", "back")
    assert (code, read["data"]["cid"], read["data"]["profile"]) == (0, made["data"]["cid"], profile)
    assert (home / "back").read_bytes() == data

    code, sent = run_json("data", "import", "x.car", "--url", store.url)
    assert (code, sent["data"]["cid"]) == (0, made["data"]["cid"])
    cid = sent["data"]["cid"]
    assert run_json("data", "export", cid, "-o", "y.car", "--url", store.url)[0] == 0
    assert (home / "y.car").read_bytes() == (home / "x.car").read_bytes()


def test_a_car_file_that_lacks_a_block_or_has_a_wrong_one_is_refused(run, home):
    data = hashlib.shake_256(b"x").digest(600_000)
    (home / "x").write_bytes(data)
    assert run("data", "export", "x", "-o", "x.car").exit_code == 0
    whole = (home / "x.car").read_bytes()
    spoilt = bytearray(whole)
    spoilt[1000] ^= 1
    (home / "x.car").write_bytes(spoilt)
    result = run("data", "import", "x.car", "-o", "back")
    assert result.exit_code == 7 and "these bytes are not block" in result.stderr
    head = 1 + whole[0]  # the header; then a leaf of 256 KiB behind three bytes of length
    (home / "x.car").write_bytes(whole[:head] + whole[head + 3 + 36 + 262_144 :])
    result = run("data", "import", "x.car", "-o", "back")
    assert result.exit_code == 3 and "no block" in result.stderr
    assert not (home / "back").exists()


def test_the_operator_lists_pins_lets_go_and_collects(run, run_json, home):
    cid = cid_of(ROWS)
    row = {"cid": cid, "size": 12, "order": 1, "pinned": True}
    info = {"cid": cid, "size": 12, "profile": "kubo-cli", "whole": True, "pinned": True}
    with serve(socket=home / "admin.sock") as own:
        own.routes["GET /v1/content"] = {"files": [row], "before": 1, "used": 12, "quota": 500}
        lines = run("data", "list", "--limit", "1", "--home", ".").stdout.splitlines()
        assert lines[1].split() == [cid, "12", "pinned"] and "--before 1" in lines[2]
        assert lines[3] == "12 of 500 bytes in all"
        own.routes[f"POST /v1/data/{cid}/pin"] = info
        own.routes[f"POST /v1/data/{cid}/unpin"] = {"ok": True}
        own.routes["POST /v1/content/collect"] = {"freed": 7, "used": 5}
        assert run_json("data", "pin", cid, "--home", ".")[1]["data"]["pinned"] is True
        assert run("data", "unpin", cid, "--admin-socket", "admin.sock").exit_code == 0
        assert run_json("data", "gc", "--home", str(home))[1]["data"] == {"freed": 7, "used": 5}
        assert run("data", "pin", "QmNope", "--home", ".").exit_code == 2


def test_without_the_socket_of_a_running_node_nobody_is_the_operator(run, home):
    for command in (("data", "gc"), ("data", "pin", cid_of(ROWS)), ("admin", "stop")):
        result = run(*command, "--home", ".")
        assert result.exit_code == 2 and "no node listens there" in result.stderr


def test_the_operator_changes_the_log_level_and_ends_the_node(run_json, home):
    with serve(socket=home / "admin.sock") as own:
        own.routes["POST /v1/node/log-level"] = {"ok": True}
        own.routes["POST /v1/node/stop"] = {"ok": True}
        code, said = run_json("admin", "log-level", "debug", "--home", ".")
        assert (code, said["data"]["done"]) == (0, "log-level debug")
        assert own.requests[-1][0] == "POST /v1/node/log-level?level=debug"
        assert run_json("admin", "stop", "--home", ".")[1]["data"]["done"] == "stop"


def test_show_lists_the_draws_of_a_dataset_with_seed_and_parts(run, run_json, node):
    cid, part = cid_of(ROWS), cid_of(b"part")
    info = {"cid": cid, "size": 12, "profile": "kubo-cli", "whole": True, "pinned": False}
    merge = {"model": cid_of(b"model"), "size": 9, "jobs": ["ab" * 32], "owner": "alice"}
    merge |= {"height": 9, "standing": True, "confirmed_by": ["validator-1"]}
    draw = {"id": "cd" * 32, "dataset": cid, "owner": "alice", "state": "named", "height": 7}
    draw |= {"seed": "ef" * 32, "parts": 2, "test_rows": 1, "merges": [merge]}
    draw["named"] = [{"cid": part, "size": 5, "rows": 3}, {"cid": part, "size": 5, "rows": 2}]
    asked = draw | {"id": "aa" * 32, "state": "requested", "seed": "", "named": [], "merges": []}
    node.routes[f"GET /v1/data/{cid}/info"] = info
    node.routes[f"GET /v1/data/{cid}/draws"] = {"draws": [asked, draw]}
    held = {"registered": True, "available": True, "holders": ["ann", "bob"], "validators": 2}
    node.routes[f"GET /v1/data/{cid}/holders"] = held
    code, document = run_json("data", "show", cid, "--url", node.url)
    assert code == 0 and document["data"] == info | {"dataset": held, "draws": [asked, draw]}
    lines = run("data", "show", cid, "--url", node.url).stdout.splitlines()
    assert lines[3] == "  available, held by 2 of 2 validators: ann, bob"
    assert "requested" in lines[4]
    assert "ef" * 32 in lines[6] and "block #7" in lines[6]
    assert lines[8].split() == ["1", part, "2", "1"]
    assert "stands, 1 validators" in lines[-1]
