"""`make bench`: one lab for each mode of kube-proxy; in each the same pods connect without a proxy, through kube-proxy
and through our datapath. Writes a table and JSON below build/bench."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from handover_api.proxymigration import Phase

from e2e import naive
from e2e.bench import ratios
from e2e.bench.cluster import Bench
from e2e.lab import Lab, LabError, images, signals
from e2e.lab.errors import Terminated
from e2e.migration import Migration
from e2e.trial import Trial, TrialError

OUTPUT = Path("build/bench")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="make bench", description=__doc__)
    top.add_argument("--modes", nargs="+", choices=("iptables", "nftables"), default=["iptables", "nftables"])
    top.add_argument(
        "--services", type=int, default=1000, help="the crowd's size, 4 endpoints each (%(default)s)"
    )
    top.add_argument(
        "--rounds",
        type=int,
        default=7,
        help="rounds, in each of which every address has its turn (%(default)s)",
    )
    top.add_argument("--connects", type=int, default=500, help="connections per turn (%(default)s)")
    return top


def run(mode: str, options: argparse.Namespace) -> list[ratios.Row]:
    """Measure one mode on a lab of its own, which is taken away afterwards."""
    lab = Lab(f"bench{mode}", nodes=2, mode=mode)
    try:
        lab.up(preload_images=images.of_project(lab.progress))
        bench = Bench.on(lab)
        pod, service = bench.place()
        turns = {"rounds": options.rounds, "connects": options.connects}
        lab.progress.say("measuring without any proxy")
        daemonset = naive.remove_kube_proxy(lab, bench.kube)
        bare = bench.measure({"pod": pod}, **turns)["pod"]
        naive.put_back(lab, bench.kube, daemonset)
        with lab.progress.step(f"creating {options.services} Services"):
            bench.fill(options.services)
        paths = {"pod": pod, "ClusterIP": service}
        lab.progress.say(f"measuring kube-proxy, {mode}")
        kube_proxy = bench.measure(paths, **turns)
        lab.install()
        migration = Migration(Trial(lab))
        migration.ask(soak="1s")
        migration.wait_for_phase(Phase.MIGRATED, within_s=600)
        lab.progress.say("measuring eBPF")
        ours = bench.measure(paths, **turns)
        return ratios.rows(
            bare, {f"kube-proxy {mode}": kube_proxy, f"eBPF (after {mode})": ours}, options.services
        )
    finally:
        with signals.ignored():
            lab.down()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything was measured; the figures are for people to judge."""
    options = parser().parse_args(argv)
    found: list[ratios.Row] = []
    try:
        with signals.unwinding():
            for mode in options.modes:
                found += run(mode, options)
    except (LabError, TrialError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except (Terminated, KeyboardInterrupt):
        print("bench: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "connect.json").write_text(json.dumps(ratios.as_json(found), indent=2) + "\n")
    (OUTPUT / "connect.md").write_text(ratios.table(found) + "\n")
    print(ratios.table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
