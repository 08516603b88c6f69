"""What the table side of an agent costs: first sync, memory, a change until it is usable, CPU while endpoints change.

    python -m e2e.bench.syncing [--services 10000 30000]

An API server in memory and the agent's own code are two processes on this machine; the maps are the kernel's, in a
bpffs of a mount namespace of our own. Needs root. Writes build/bench/syncing.json and a table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

OUTPUT = Path("build/bench")


def measure(services: int, seconds: float) -> dict[str, Any]:
    """One size, in fresh processes."""
    with tempfile.TemporaryDirectory() as scratch:
        bpffs, sent = Path(scratch) / "bpf", Path(scratch) / "sent"
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "handover-bench", bpffs], check=True)
        try:
            server = _start("e2e.bench.lists", "--services", str(services), "--sent", str(sent))
            port = _line(server)
            agent = _start(
                "e2e.bench.following",
                "--port",
                port,
                "--services",
                str(services),
                "--pins",
                str(bpffs / "bench"),
            )
            try:
                result: dict[str, Any] = json.loads(_line(agent))
                for name, rate in (("quiet", 0.0), ("slow", 10.0), ("fast", 100.0)):
                    result[name] = _phase(server, agent, rate, seconds, sent)
                return result
            finally:
                for process in (agent, server):
                    process.kill()
                    process.wait()
        finally:
            subprocess.run(["umount", bpffs], check=True)


def _phase(
    server: subprocess.Popen[str], agent: subprocess.Popen[str], rate: float, seconds: float, sent: Path
) -> dict[str, Any]:
    """Changes at one rate: when were they usable, and what did it cost?"""
    sent.write_text("")
    _tell(agent, "begin")
    _tell(server, f"{rate or 1} {seconds if rate else 0}")
    assert _line(server) == "done"
    subprocess.run(["sleep", "1" if rate else str(seconds)], check=True)
    _tell(agent, "end")
    seen = json.loads(_line(agent))
    at = dict(line.split() for line in sent.read_text().splitlines())
    took = sorted(
        (seen["usable"][address] - float(since)) * 1e3
        for address, since in at.items()
        if address in seen["usable"]
    )
    found: dict[str, Any] = {"changes": len(at), "cpu": seen["cpu"], "mb": seen["mb"]}
    if took:
        cuts = statistics.quantiles(took, n=100)
        found |= {"usable": len(took), "p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1)}
    return found


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    line = _pipe(process.stdout).readline().strip()
    if not line:
        raise SystemExit(f"{process.args!r} ended with {process.wait()}")
    return line


def _tell(process: subprocess.Popen[str], line: str) -> None:
    pipe = _pipe(process.stdin)
    pipe.write(line + "\n")
    pipe.flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def table(results: list[dict[str, Any]]) -> str:
    """For people."""
    head = (
        "| Services | frontends | list s | fill s | first sync s | its CPU s | idle MB | MB after | peak MB "
        "| change p50 ms | p99 ms | p50 ms at 100/s | p99 ms | CPU at 100/s | CPU quiet |\n"
        + "|---" * 15
        + "|"
    )
    rows = [
        "| "
        + " | ".join(
            str(cell)
            for cell in (
                *(
                    r[n]
                    for n in ("services", "frontends", "list_s", "fill_s", "first_sync_s", "first_sync_cpu_s")
                ),
                *(r[n] for n in ("idle_mb", "full_mb", "peak_mb")),
                *(r[phase][n] for phase in ("slow", "fast") for n in ("p50_ms", "p99_ms")),
                f"{r['fast']['cpu']:.1%}",
                f"{r['quiet']['cpu']:.1%}",
            )
        )
        + " |"
        for r in results
    ]
    return "\n".join([head, *rows])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, nargs="+", default=[10, 10_000, 30_000])
    parser.add_argument("--seconds", type=float, default=20.0, help="of changes at each rate (%(default)s)")
    options = parser.parse_args()
    if os.environ.get("HANDOVER_BENCH_MOUNTS") != "own":
        command = ["unshare", "--mount", sys.executable, "-P", "-m", "e2e.bench.syncing", *sys.argv[1:]]
        return subprocess.run(
            command, env={**os.environ, "HANDOVER_BENCH_MOUNTS": "own"}, check=False
        ).returncode
    results = [measure(services, options.seconds) for services in options.services]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "syncing.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
