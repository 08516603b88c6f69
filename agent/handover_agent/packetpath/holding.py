"""Datagrams change hands: their flows become conntrack's while they wait, a few at a time.

Nobody sends a datagram again. Between the moment when conntrack has forgotten a flow as the programs translate it, and
the one when they translate it no more, a datagram would begin an entry with another port, or of the wrong kind; and its
answer would not find back. So for these few hundred microseconds the programs have the datagrams of both directions go
round in circles (FLOW_HELD, bpf/changing.h), and only those of the flows that are just being moved.
"""

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from handover_agent import bpfbatch
from handover_agent.conntrack import ConntrackError
from handover_agent.conntrack.entries import Tuple
from handover_agent.conntrack.moving import Moving, answers
from handover_agent.conntrack.netlink import Mover
from handover_agent.entries import Direction, pack_flow_key, pack_held
from handover_agent.table import Backend

AT_ONCE = 16
"""Flows that are moved together. The more, the fewer system calls, and the longer each has to wait."""
_UNDER_WAY_NS = 50_000
"""So long a packet takes at most from a device's program to conntrack, with nothing in between that waits."""
_MOST_TRIES = 5

Entry = tuple[bytes, bytes]
"""Key and value of the map of flows."""


@dataclass(frozen=True, slots=True)
class Held:
    """A flow that is to be moved: what it is, and its entries in the map, the forward one first."""

    moving: Moving
    entries: tuple[Entry, ...]


def move(flows: int, mover: Mover, held: Iterable[Held]) -> Iterator[bool | ConntrackError]:
    """Move flows of the map with this descriptor, and forget those that were; what came of each, in no order.

    False: conntrack does not know it. Raises BpfError; then some have been moved.
    """
    rest = iter(held)
    while batch := list(islice(rest, AT_ONCE)):
        yield from _move(flows, mover, batch, _MOST_TRIES)


def _move(flows: int, mover: Mover, batch: Sequence[Held], tries: int) -> list[bool | ConntrackError]:
    known, outcomes = list[tuple[Held, bytes]](), list[bool | ConntrackError]()
    for each in batch:
        try:
            found = mover.find(each.moving.seen)
        except ConntrackError as error:
            outcomes.append(error)
            continue
        if found is None:
            outcomes.append(False)
        else:
            known.append((each, found))
    if not known:
        return outcomes
    prepared = b"".join(mover.prepare(each.moving, found) for each, found in known)
    entries = dict(entry for each, _ in known for entry in each.entries)
    # Where the source is the node's, answers arrive with another destination than the one that they leave with.
    markers = [key_of(Direction.BACKWARD, answers(found, each.moving.seen)) for each, found in known]
    entries |= {key: b"" for key in markers if key not in entries}
    os.sched_yield()  # now let others run, and not while datagrams wait
    since = time.monotonic_ns()
    bpfbatch.write(flows, [(key, pack_held(value, since)) for key, value in entries.items()])
    while time.monotonic_ns() - since < _UNDER_WAY_NS:
        pass  # whoever sleeps may sleep for too long
    mover.send(prepared)
    bpfbatch.delete(flows, list(entries))
    again = list[Held]()
    for each, _ in known:
        refused = mover.outcome()
        if refused is None:
            outcomes.append(True)
            continue
        bpfbatch.write(flows, each.entries)
        if refused.code == errno.EEXIST and tries > 1:  # something began meanwhile
            again.append(each)
        else:
            outcomes.append(refused)
    return outcomes + _move(flows, mover, again, tries - 1) if again else outcomes


def key_of(direction: Direction, packets: Tuple) -> bytes:
    """The key of the entry for such packets."""
    source = Backend(packets.source, packets.source_port)
    destination = Backend(packets.destination, packets.destination_port)
    return pack_flow_key(direction, packets.protocol, source, destination)
