"""`drops`: what the datapath could not or would not serve, and what to do about it."""

import argparse
import time
from collections.abc import Mapping

from handover_agent import bpfmap, layout
from handover_agent.settings import Settings
from handover_agent.showing.command import Command, WrongUsage
from handover_agent.showing.counting import Kind, meaning
from handover_agent.showing.listing import Listing, Row
from handover_agent.showing.node import Node

_LONGEST_S = 3600.0
_KINDS = list(Kind)


def counters(node: Node) -> dict[str, int]:
    """Counter → sum over all CPUs since the maps were made. Raises CannotShow."""
    length = 8 * bpfmap.possible_cpus()
    with node.map("counters") as opened:
        return {
            name: layout.sum_counter(bpfmap.lookup(opened.fd, layout.pack_index(index), length) or b"")
            for index, name in enumerate(layout.counter_names())
        }


def drops(
    counts: Mapping[str, int],
    means: Mapping[str, str],
    *,
    everything: bool = False,
    during_s: float | None = None,
    notes: tuple[str, ...] = (),
) -> Listing:
    """The counters that matter, the worst first: pure."""
    shown = [
        (meaning(name), name, count)
        for name, count in counts.items()
        if everything or (count and meaning(name).kind.told)
    ]
    shown.sort(key=lambda item: (_KINDS.index(item[0].kind), -item[2], item[1]))
    rows = [
        Row(
            (known.kind, name, str(count), means.get(name, "")),
            {
                "counter": name,
                "kind": known.kind,
                "count": count,
                "means": means.get(name, ""),
                "do": known.do,
                "during_s": during_s,
            },
            known.do if known.kind.told else "",
        )
        for known, name, count in shown
    ]
    empty = "Nothing was dropped, refused or missed"
    empty += f" in {during_s:g} s." if during_s else " since the maps were made."
    return Listing(("KIND", "COUNTER", "COUNT", "MEANS"), rows, empty, notes)


def _show(options: argparse.Namespace, settings: Settings) -> Listing:
    during: float | None = options.during
    if during is not None and not 0 < during <= _LONGEST_S:
        raise WrongUsage(f"--during {during:g}: give between 0 and {_LONGEST_S:g} seconds")
    node = Node.look(settings)
    counts = counters(node)
    if during is not None:
        time.sleep(during)
        before, counts = counts, counters(node)
        counts = {name: count - before[name] for name, count in counts.items()}
    means = layout.counter_names()
    return drops(counts, means, everything=options.all, during_s=during, notes=node.notes)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="every counter, also what is served and zeros")
    parser.add_argument(
        "--during", type=float, metavar="SECONDS", help="wait so long, and show what was counted meanwhile"
    )


DROPS = Command(
    "drops",
    "what was dropped, refused or missed, and what to do about it",
    "The datapath's counters of what it did not serve, since the maps were made (they outlive the agent); "
    "with --during, of the next seconds. KIND error must not be there at all; dropped: the client sees a "
    "time-out; refused: it sees ECONNREFUSED; missed: left to the network stack as it was. Below each stands "
    "what to do.",
    _show,
    _flags,
)
