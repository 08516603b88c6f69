"""The demo's command line: brings the lab up, plays, says what came of it, and takes the lab away."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.demo import summary
from e2e.demo.screen import screen
from e2e.demo.story import DemoError, Story
from e2e.kube import KubeError
from e2e.lab import Lab, LabError, images, signals
from e2e.lab.errors import Terminated
from e2e.migration import write_down
from e2e.traffic.collector import CollectorError
from e2e.trial import TrialError

LAB = "demo"
REPORT = Path("build/demo")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="make demo",
        description="A real cluster goes from kube-proxy to eBPF and back under live traffic. Needs root.",
    )
    top.add_argument(
        "--mode", choices=("iptables", "nftables"), default="iptables", help="kube-proxy's mode (%(default)s)"
    )
    top.add_argument("--nodes", type=int, default=3, help="nodes of the cluster (%(default)s)")
    top.add_argument("--fast", action="store_true", help="soak for 3 s instead of 10 s, a shorter baseline")
    top.add_argument("--keep", action="store_true", help=f"leave the lab up (handover-lab --name {LAB} down)")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was lost and nothing is left; 1 when it was; other codes when it could not be shown."""
    options = parser().parse_args(argv)
    lab = Lab(LAB, nodes=options.nodes, mode=options.mode)
    try:
        with signals.unwinding():
            return _shown(lab, options)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        if not options.keep:
            with signals.ignored():
                lab.down()


def _shown(lab: Lab, options: argparse.Namespace) -> int:
    began = time.monotonic()
    output = screen()
    output.say(f"a cluster of {options.nodes} nodes, kube-proxy in {options.mode} mode, on this machine")
    lab.up(preload_images=images.of_project(lab.progress))
    lab.install()
    story = Story(lab, output, "3s" if options.fast else "10s", 8 if options.fast else 20)
    try:
        wrong = story.play()
    except (DemoError, TrialError, CollectorError, KubeError) as error:
        output.close()
        write_down(story.trial, REPORT)
        if report := story.report():
            output.table(summary.HEADER, summary.rows(report))
        print(f"demo: {error}\nLogs and states are in {REPORT}.", file=sys.stderr)
        return 1
    finally:
        output.close()
        story.trial.close()
    print(summary.LEGEND)
    minutes = (time.monotonic() - began) / 60
    if wrong:
        print("\nNOT as it should be:\n" + "\n".join(f"- {line}" for line in wrong))
        return 1
    print(f"\nlost 0 in every phase; leftovers none; {minutes:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
