"""What a soak saw: samples of every node, a table, a JSON document, a picture of the timeline."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from soak_network import SoakNetwork
from traffic import Traffic

from mlchain.client.client import Client
from mlchain.errors import MlchainError

SAMPLE_S = 1.0
ENOUGH_S = 30.0
"""Of one life of a process, for a slope to mean anything."""
COLOURS = {
    "kill": "#c0392b", "kill-all": "#7b241c", "freeze": "#2980b9", "clock": "#8e44ad",
    "slow-disk": "#d68910", "full-disk": "#b9770e", "cut": "#16a085", "halves": "#0e6655",
    "garbage": "#7f8c8d", "flood": "#2c3e50", "flood-http": "#566573",
}  # fmt: skip


class Sample(NamedTuple):
    """One node at one moment; `height` -1: it did not answer."""

    at: float
    pid: int
    height: int
    resident: int
    """All of its memory in RAM; with it pages of files, which the system may drop at any time."""
    anonymous: int
    """What is the node's alone: the heap."""
    cpu_s: float
    """Spent since the process began."""
    descriptors: int
    disk: int


class Event(NamedTuple):
    """One fault: when it began and ended, and when all validators voted again."""

    name: str
    who: tuple[str, ...]
    started: float
    ended: float
    healed: float


class Sampler:
    """Looks at every node once a second, in a thread."""

    def __init__(self, network: SoakNetwork, report: Report) -> None:
        self._network, self._report = network, report
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(name,), daemon=True)
            for name in network.honest
        ]

    def __enter__(self) -> Sampler:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _watch(self, name: str) -> None:
        url, home = self._network.plans[name].url, self._network.home(name)
        with Client(url, timeout_s=2) as client:
            while not self._stop.wait(SAMPLE_S):
                process = self._network.processes.get(name)
                if process is None:
                    continue
                try:
                    height = int(client.status()["height"])
                except MlchainError:
                    height = -1
                try:
                    resident, anonymous, cpu_s = _memory_and_cpu(process.pid)
                    descriptors = len(os.listdir(f"/proc/{process.pid}/fd"))
                    disk = sum(f.stat().st_size for f in home.rglob("*") if f.is_file())
                except (OSError, IndexError, KeyError):
                    continue
                self._report.samples[name].append(
                    Sample(
                        time.monotonic(), process.pid, height, resident, anonymous, cpu_s,
                        descriptors, disk,
                    )
                )  # fmt: skip


def _memory_and_cpu(pid: int) -> tuple[int, int, float]:
    """Return resident and anonymous bytes of a process, and the CPU seconds it took so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {name: int(v.split()[0]) for name, v in (x.split(":", 1) for x in lines if "kB" in x)}
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return kib["VmRSS"] << 10, kib["RssAnon"] << 10, cpu_s


@dataclass
class Report:
    """Everything that is told at the end. Times of the monotonic clock, in seconds."""

    seed: int
    started: float = 0.0
    calm_until: float = 0.0
    weather_until: float = 0.0
    ended: float = 0.0
    events: list[Event] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    waits: list[tuple[float, float]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    transactions: int = 0
    final: int = 0
    votes: int = 0
    height: int = 0
    complaints: list[str] = field(default_factory=list)

    def on_end(self, traffic: Traffic) -> None:
        """Take the times that clients measured; `ended` is when the last calm was over."""
        self.ended = self.ended or time.monotonic()
        self.waits = sorted(wait for sender in traffic.senders for wait in list(sender.waits))
        for sender in traffic.senders:
            for reason, count in list(sender.refused.items()):
                self.refused[reason] = self.refused.get(reason, 0) + count

    # ---- figures ------------------------------------------------------------------------------

    def latency(self, since: float, until: float) -> tuple[float, float]:
        """Median and 9th decile of the waits that began in a stretch of time."""
        waits = sorted(seconds for at, seconds in self.waits if since <= at < until)
        if not waits:
            return float("nan"), float("nan")
        return statistics.median(waits), waits[int(0.9 * (len(waits) - 1))]

    def recovery_s(self) -> float:
        """Seconds after the last fault until waits are as at the beginning, for five seconds.

        Not a number if they never were, or there was no last fault.
        """
        normal = 1.5 * self.latency(self.started, self.calm_until)[1]
        at = self.weather_until
        while self.weather_until and at + 5 < self.ended:
            if self.latency(at, at + 5)[1] <= normal:
                return at - self.weather_until
            at += 0.5
        return float("nan")

    def slope(self, name: str, what: str) -> float:
        """Growth per minute in the second half of the longest life of a process."""
        lives: dict[int, list[Sample]] = defaultdict(list)
        for sample in self.samples[name]:
            lives[sample.pid].append(sample)
        life = max(lives.values(), key=len, default=[])
        life = life[len(life) // 2 :]
        if len(life) < 3 or life[-1].at - life[0].at < ENOUGH_S:
            return float("nan")
        times = [sample.at for sample in life]
        values = [float(getattr(sample, what)) for sample in life]
        return statistics.linear_regression(times, values).slope * 60

    def disk_per_block(self, name: str) -> float:
        found = [s for s in self.samples[name] if s.height > 0]
        grown = found[-1].height - found[0].height if found else 0
        return (found[-1].disk - found[0].disk) / grown if grown else float("nan")

    def minutes(self) -> list[dict[str, Any]]:
        """What each minute was like; the work of a block tells a slow node from a busy machine."""
        found = []
        for number in range(int((self.ended - self.started) // 60) + 1):
            since = self.started + 60 * number
            waits = self.latency(since, since + 60)
            row: dict[str, Any] = {"minute": number, "wait_s": waits, "nodes": {}}
            for name, samples in self.samples.items():
                here = [s for s in samples if since <= s.at < since + 60 and s.height >= 0]
                here = [s for s in here if s.pid == here[-1].pid]
                if here:
                    first, last = here[0], here[-1]
                    blocks, cpu_s = last.height - first.height, last.cpu_s - first.cpu_s
                    row["nodes"][name] = {
                        "height": last.height,
                        "anon_mib": last.anonymous / 2**20,
                        "cpu_ms_per_block": 1000 * cpu_s / blocks if blocks else None,
                    }
            found.append(row)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One row for each node."""
        return [
            {
                "node": name,
                "rss_mib": seen[-1].resident / 2**20,
                "anon_mib": seen[-1].anonymous / 2**20,
                "anon_max_mib": max(s.anonymous for s in seen) / 2**20,
                "anon_mib_per_min": self.slope(name, "anonymous") / 2**20,
                "descriptors": seen[-1].descriptors,
                "descriptors_max": max(s.descriptors for s in seen),
                "descriptors_per_min": self.slope(name, "descriptors"),
                "disk_kib_per_block": self.disk_per_block(name) / 1024,
            }
            for name, seen in self.samples.items()
            if seen
        ]

    def document(self) -> dict[str, Any]:
        """Everything, for machines; what could not be measured is null."""
        calm, bad = self.latency(0, self.calm_until), self.latency(self.calm_until, self.ended)
        events = [
            {**e._asdict(), **{k: getattr(e, k) - self.started for k in Event._fields[2:]}}
            for e in self.events
        ]
        keep = ("seed", "transactions", "final", "votes", "height", "refused", "complaints")
        found = {
            **{key: getattr(self, key) for key in keep},
            "seconds": self.ended - self.started,
            "latency_calm_s": calm,
            "latency_weather_s": bad,
            "recovery_s": self.recovery_s(),
            "events": events,
            "nodes": self.rows(),
            "minutes": self.minutes(),
        }
        return _without_nan(found)

    def lines(self) -> list[str]:
        """Everything, for people."""
        calm, bad = self.latency(0, self.calm_until), self.latency(self.calm_until, self.ended)
        healing = [event.healed - event.ended for event in self.events] or [0.0]
        lines = [
            f"seed {self.seed}, {self.ended - self.started:.0f} s, height {self.height}",
            f"faults              {len(self.events)}; all vote again after"
            f" {statistics.median(healing):.1f} s median, {max(healing):.1f} s at most",
            f"transactions        {self.transactions} taken, {self.final} said to be final",
            f"votes compared      {self.votes}",
            f"wait, calm          {calm[0]:.2f} s median, {calm[1]:.2f} s 9 of 10",
            f"wait, in weather    {bad[0]:.2f} s median, {bad[1]:.2f} s 9 of 10",
            f"back to normal      {self.recovery_s():.1f} s after the last fault",
            "",
            "node            RSS MiB   heap    max   +/min   files  max  +/min   KiB/block",
        ]
        for row in self.rows():
            lines.append(
                f"{row['node']:<14} {row['rss_mib']:8.0f} {row['anon_mib']:6.0f}"
                f" {row['anon_max_mib']:6.0f} {row['anon_mib_per_min']:7.2f}"
                f" {row['descriptors']:7d} {row['descriptors_max']:4d}"
                f" {row['descriptors_per_min']:6.2f} {row['disk_kib_per_block']:11.2f}"
            )
        return lines

    # ---- the picture --------------------------------------------------------------------------

    def picture(self) -> str:
        """Return the timeline as SVG: each node with its faults, then heights, waits, memory."""
        width, left, lane = 1100.0, 110.0, 18.0
        scale = (width - left - 20) / max(1.0, self.ended - self.started)
        names = list(self.samples)
        parts: list[str] = []

        def x(at: float) -> float:
            return left + (at - self.started) * scale

        def text(at_x: float, at_y: float, words: str, more: str = "") -> None:
            parts.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}" {more}>{words}</text>')

        for row, name in enumerate(names):
            text(4, 40 + row * lane, name)
            parts.append(
                f'<rect x="{left}" y="{28 + row * lane}" width="{width - left - 20}" height="14"'
                ' fill="#eee"/>'
            )
        for event in self.events:
            rows = [i for i, n in enumerate(names) if any(n == w.split()[0] for w in event.who)]
            for row in rows or range(len(names)):
                colour = COLOURS[event.name]
                for begin, until, opacity in (
                    (event.started, event.ended, 1),
                    (event.ended, event.healed, 0.35),
                ):
                    parts.append(
                        f'<rect x="{x(begin):.1f}" y="{28 + row * lane}" height="14"'
                        f' width="{max(1.0, (until - begin) * scale):.1f}" fill="{colour}"'
                        f' opacity="{opacity}"><title>{event.name}</title></rect>'
                    )
        y = 40 + len(names) * lane
        heights = {n: [(s.at, s.height) for s in self.samples[n] if s.height >= 0] for n in names}
        memory = {n: [(s.at, s.anonymous / 2**20) for s in self.samples[n]] for n in names}
        dots = [(at, wait) for at, wait in self.waits]
        for title, series, is_dotted in (
            ("height", list(heights.values()), False),
            ("wait, s", [dots], True),
            ("heap, MiB", list(memory.values()), False),
        ):
            top = max((v for points in series for _, v in points), default=1) or 1
            text(4, y + 20, title)
            text(4, y + 36, f"to {top:.1f}", 'fill="#777"')
            for points in series:
                at = [(x(t), y + 120 - 110 * v / top) for t, v in points]
                if is_dotted:
                    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="1"/>' for a, b in at]
                else:
                    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
                    parts.append(f'<polyline points="{line}" fill="none" stroke="#345"/>')
            y += 135
        for number, (name, colour) in enumerate(COLOURS.items()):
            parts.append(
                f'<rect x="{left + 88 * number}" y="6" width="10" height="10" fill="{colour}"/>'
            )
            text(left + 88 * number + 13, 15, name)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 10}"'
            ' font-family="sans-serif" font-size="11"><rect width="100%" height="100%"'
            ' fill="white"/>' + "\n".join(parts) + "</svg>\n"
        )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if value != value else value
