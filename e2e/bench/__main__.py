"""`make bench`: everything at every size, and what came of it as a table, as JSON and as a plot, below build/bench."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

from e2e.bench import crowd, machine, plot, report
from e2e.bench.asking import BenchError
from e2e.bench.ground import NODES, Ground
from e2e.bench.proxies import Agent, KubeProxy, Proxy
from e2e.bench.results import KUBE_PROXIES, OURS, Results, ResultsError, Sample, State
from e2e.bench.steps import STEPS
from e2e.bench.turns import Bench, Effort
from e2e.kube import KubeError
from e2e.lab import Lab, LabError, signals
from e2e.lab.errors import Terminated
from e2e.lab.paths import CHECKOUT
from e2e.trial import TrialError

SIZES = (10, 1_000, 10_000, 30_000)
SHORT = Effort(rounds=21, stream_rounds=5, connects=300, stream_s=0.5, changes=11, slow_changes=3, cpu_s=10)
RESULTS, TABLE, PLOT = "results.json", "results.md", "results.svg"
DOCUMENT = CHECKOUT / "docs/benchmark.md"
_SAME = ("commit", "effort", "kernel", "processor")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="make bench",
        description="Measures no proxy, kube-proxy in both modes, and ours, on one lab, in turns. Needs root.",
        epilog="A run that was interrupted goes on where it was; --keep leaves the lab with its Services for that.",
    )
    top.add_argument("--sizes", type=int, nargs="+", metavar="SERVICES", help=f"ascending ({_listed(SIZES)})")
    top.add_argument("--short", action="store_true", help="1,000 Services and fewer rounds, as in CI")
    top.add_argument("--steps", nargs="+", choices=tuple(STEPS), help="only these; `start` is always done")
    top.add_argument(
        "--kube-proxy",
        nargs="*",
        choices=KUBE_PROXIES,
        default=list(KUBE_PROXIES),
        help="modes to compare with (both)",
    )
    top.add_argument("--rounds", type=int, help=f"rounds of short turns ({Effort().rounds})")
    top.add_argument(
        "--patience",
        type=float,
        help=f"seconds for a proxy to serve all Services, else it is left out ({Effort().patience_s:.0f})",
    )
    top.add_argument("--fresh", action="store_true", help="forget what was measured before")
    top.add_argument("--keep", action="store_true", help="leave the lab up (handover-lab --name bench down)")
    top.add_argument("--lab", default="bench", help="the lab's name (%(default)s)")
    top.add_argument("--output", type=Path, default=Path("build/bench"), help="directory (%(default)s)")
    top.add_argument(
        "--docs", action="store_true", help=f"measure nothing: put what was measured into {DOCUMENT.name}"
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything was measured; the figures are for people to judge."""
    options = parser().parse_args(argv)
    try:
        if options.docs:
            into_docs(options.output)
            return 0
        with signals.unwinding():
            results = run(options)
    except (LabError, TrialError, KubeError, BenchError, ResultsError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("bench: interrupted; what was measured is kept, the next run goes on with it", file=sys.stderr)
        return 128 + signal.SIGINT
    print(report.markdown(results))
    return 0


def run(options: argparse.Namespace) -> Results:
    """Measure what is not measured yet. Raises what goes wrong; what was measured until then is on disk."""
    file = options.output / RESULTS
    sizes = options.sizes or ([1_000] if options.short else list(SIZES))
    if sorted(set(sizes)) != sizes or not 0 < sizes[0] <= sizes[-1] <= crowd.MOST:
        raise BenchError(f"--sizes must be ascending numbers from 1 to {crowd.MOST}, and these are {sizes}")
    effort = effort_of(options)
    if options.fresh:
        file.unlink(missing_ok=True)
    results = Results.resume(file, about(effort), _SAME)
    wanted = [step for step in STEPS if not options.steps or step in options.steps or step == "start"]
    if all(results.done(step, size) for size in sizes for step in wanted):
        return results
    lab = Lab(options.lab, nodes=len(NODES) + 1, mode="iptables")
    kept = False
    try:
        ground = Ground.open(lab)
        try:
            proxies = _proxies(ground, options.kube_proxy)
            bench = Bench(ground, proxies, effort)
            for size in sizes:
                if not all(results.done(step, size) for step in wanted):
                    measure(bench, size, wanted, results, file)
            kept = options.keep
        finally:
            ground.close()
    finally:
        if not (kept or options.keep):
            with signals.ignored():
                lab.down()
    return results


def measure(bench: Bench, size: int, steps: Sequence[str], results: Results, file: Path) -> None:
    """Everything at one size; each step is on disk when it is done."""
    before, began = machine.Busy.now(bench.ground.lab.subtree), time.monotonic()
    created = bench.ground.grow(size)
    if created:
        results.add([Sample("created", size, OURS, (created,))], _state("create", size, bench, before, began))
    try:
        for step in steps:
            if results.done(step, size) and step != "start":
                continue
            for running in bench.running.values():
                running.calm()
            bench.say(f"{size:,} Services: {step}")
            before, began = machine.Busy.now(bench.ground.lab.subtree), time.monotonic()
            samples = list(STEPS[step](bench, size))
            if not results.done(step, size):
                results.add(samples, _state(step, size, bench, before, began))
            write(results, file)
    finally:
        with signals.ignored():
            bench.stop()


def write(results: Results, file: Path) -> None:
    """Results, table and plot."""
    results.save(file)
    file.with_name(TABLE).write_text(report.markdown(results) + "\n")
    file.with_name(PLOT).write_text(plot.svg(results))


def into_docs(output: Path) -> None:
    """Put the last run's table into the docs, its plot and figures beside it. Raises ResultsError."""
    try:
        results = Results.load(output / RESULTS)
    except FileNotFoundError as error:
        raise ResultsError(f"{error.filename} is not there: run `make bench` first") from error
    beside = DOCUMENT.with_suffix("")
    beside.mkdir(exist_ok=True)
    results.save(beside / RESULTS)
    (beside / PLOT).write_text(plot.svg(results))
    picture = f"![How three figures grow with the number of Services]({beside.name}/{PLOT})"
    report.put_into(DOCUMENT, f"{picture}\n\n{report.markdown(results)}")


def effort_of(options: argparse.Namespace) -> Effort:
    """From the options."""
    effort = SHORT if options.short else Effort()
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    return replace(effort, patience_s=options.patience) if options.patience else effort


def about(effort: Effort) -> dict[str, str]:
    """Of which code, machine and options a run is."""
    asked = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    done = ", ".join(
        f"{f.name} {getattr(effort, f.name):g}" for f in fields(effort) if f.name != "patience_s"
    )
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        **machine.describe(),
        "effort": done,
    }


def _proxies(ground: Ground, modes: Sequence[str]) -> dict[str, Proxy]:
    """Ours first: it is the quickest to start, and the others wait anyway."""
    lab = ground.lab
    found: dict[str, Proxy] = {OURS: Agent(lab, ground.node(OURS), ground.kube)}
    for mode in reversed(KUBE_PROXIES):
        if mode in modes:
            found[mode] = KubeProxy(lab, ground.node(mode), mode, ground.configuration)
    return found


def _state(step: str, size: int, bench: Bench, before: machine.Busy, began: float) -> State:
    others = machine.Busy.now(bench.ground.lab.subtree).others_since(before)
    return State(step, size, round(time.monotonic() - began, 1), os.getloadavg()[0], round(others, 2))


def _listed(sizes: Sequence[int]) -> str:
    return " ".join(map(str, sizes))


if __name__ == "__main__":
    sys.exit(main())
