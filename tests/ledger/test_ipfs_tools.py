"""IPFS tools in JavaScript read what we write, and we read what they write."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from mlchain.client.files import name_file, read_car, write_car

PACKAGES = (
    "@ipld/car@5", "blockstore-core@7", "ipfs-unixfs-exporter@16", "ipfs-unixfs-importer@17.1.1",
)  # fmt: skip
SCRIPT = """
import { createReadStream, createWriteStream, readFileSync, writeFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { CarReader, CarWriter } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { exporter } from 'ipfs-unixfs-exporter'
const [verb, from, to, chunk, links] = process.argv.slice(2)
const store = new MemoryBlockstore()
if (verb === 'read') {
  const car = await CarReader.fromIterable(createReadStream(from))
  for await (const { cid, bytes } of car.blocks()) await store.put(cid, bytes)
  const [root] = await car.getRoots()
  const entry = await exporter(root, store)
  const parts = []
  for await (const part of entry.content()) parts.push(part)
  writeFileSync(to, Buffer.concat(parts))
  console.log(root.toString())
} else {
  const options = { cidVersion: 1, rawLeaves: true, wrapWithDirectory: false,
    chunker: fixedSize({ chunkSize: Number(chunk) }),
    layout: balanced({ maxChildrenPerNode: Number(links) }) }
  const keep = [], put = store.put.bind(store)
  store.put = async (cid, bytes, o) => { keep.push({ cid, bytes }); return put(cid, bytes, o) }
  let root
  for await (const e of importer([{ content: readFileSync(from) }], store, options)) root = e.cid
  const { writer, out } = CarWriter.create([root])
  Readable.from(out).pipe(createWriteStream(to))
  for (const block of keep) await writer.put(block)
  await writer.close()
  console.log(root.toString())
}
"""


@pytest.fixture(scope="module")
def javascript(tmp_path_factory):
    """Run the script in a folder where npm has installed an implementation of IPFS."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("ipfs-js")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    (folder / "run.js").write_text(SCRIPT)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer")
    if done.returncode:
        pytest.skip("npm cannot install the packages here")

    def run(*arguments: object) -> str:
        line = ["node", "run.js", *map(str, arguments)]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


CASES = {"kubo-cli": (262_144, 174), "unixfs-v1-2025": (1_048_576, 1024)}


@pytest.mark.slow
@pytest.mark.parametrize("profile", CASES)
@pytest.mark.parametrize("size", [0, 5, 1_048_577, 46_000_000])
def test_files_go_to_ipfs_tools_and_back(javascript, tmp_path: Path, profile, size):
    source, mine = tmp_path / "source", tmp_path / "mine.car"
    source.write_bytes(hashlib.shake_256(b"js").digest(size))
    named = write_car(source, mine, profile)

    assert javascript("read", mine, tmp_path / "theirs") == named.cid
    assert (tmp_path / "theirs").read_bytes() == source.read_bytes()

    cid = javascript("write", source, tmp_path / "theirs.car", *CASES[profile])
    assert cid == named.cid == name_file(source, profile).cid
    assert read_car(tmp_path / "theirs.car", tmp_path / "back").cid == cid
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
