"""`flows`: the connections to Services that this node translates now, and who translates them.

Three paths are shown side by side, because whoever asks where a connection goes does not know beforehand by
which it goes: sockets and packets of ours, and what is left on kube-proxy's conntrack entries.
"""

import argparse
import time
from collections.abc import Iterable

from handover_agent.conntrack import ConntrackError, entries, netlink
from handover_agent.conntrack.old import in_use
from handover_agent.entries import protocol_text, unpack_flow, unpack_reverse
from handover_agent.settings import Settings
from handover_agent.showing.command import Command, WrongUsage, only
from handover_agent.showing.connections import (
    Connection,
    names_of,
    of_kube_proxy,
    of_left,
    of_packets,
    of_sockets,
)
from handover_agent.showing.listing import Listing, Row, ago, number
from handover_agent.showing.node import Node
from handover_agent.table import Backend, ip_text


def listing(
    connections: Iterable[Connection], wanted: str = "", limit: int = 0, notes: tuple[str, ...] = ()
) -> Listing:
    """The table, by Service and backend: pure."""
    ordered = sorted(
        connections, key=lambda c: (c.service, c.frontend, c.backend, c.path, c.client_text, c.protocol)
    )
    rows = [row for connection in ordered if wanted in " ".join((row := _row(connection)).cells)]
    told = list(notes)
    if limit and len(rows) > limit:
        told.append(f"{limit} of {number(len(rows), 'connection')} are shown: --limit 0 shows all")
        rows = rows[:limit]
    empty = (
        f"No connection contains {wanted!r}; without an argument, all are shown."
        if wanted
        else "Nothing is translated now: no open socket, no flow, nothing on kube-proxy's conntrack entries."
    )
    header = ("PATH", "PROTOCOL", "CLIENT", "FRONTEND", "BACKEND", "STATE", "IDLE", "SERVICE")
    return Listing(header, rows, empty, tuple(told))


def _row(c: Connection) -> Row:
    return Row(
        (
            c.path,
            protocol_text(c.protocol),
            c.client_text,
            str(c.frontend),
            str(c.backend),
            c.state,
            "-" if c.idle_s is None else ago(c.idle_s),
            c.service or "-",
        ),
        {
            "path": c.path,
            "protocol": protocol_text(c.protocol),
            "client": _end(c.client),
            "socket_cookie": c.socket,
            "frontend": _end(c.frontend),
            "backend": _end(c.backend),
            "state": c.state,
            "idle_s": None if c.idle_s is None else round(c.idle_s, 1),
            "service": c.service or None,
        },
    )


def _end(end: Backend | None) -> dict[str, object] | None:
    return None if end is None else {"address": ip_text(end.address), "port": end.port}


def read(node: Node, ended: bool = False) -> tuple[list[Connection], tuple[str, ...]]:
    """Every connection, and what could not be looked at. `ended`: also what conntrack merely remembers.

    Raises CannotShow.
    """
    with node.frontends() as maps:
        names = names_of((key, node.service(v.service_id)) for key, v in maps.read_frontends().items())
    with node.map("reverse") as opened:
        found = of_sockets([unpack_reverse(*entry) for entry in opened.entries()], names)
    with node.map("flows") as opened:
        flows = [unpack_flow(*entry) for entry in opened.entries()]
    found += of_packets(flows, node.names, names, time.monotonic_ns(), ended)
    try:
        wanted = {entries.destination(address, port, protocol) for protocol, address, port in names}
        theirs = list(netlink.translated_flows(wanted))
        found += of_kube_proxy(theirs if ended else in_use(theirs), names)
        found += of_left(flows, theirs, names, time.monotonic_ns())
    except (ConntrackError, OSError) as error:
        return found, (f"what kube-proxy's conntrack entries carry is not known: {error}",)
    return found, ()


def _show(options: argparse.Namespace, settings: Settings) -> Listing:
    if options.limit < 0:
        raise WrongUsage(f"--limit {options.limit}: give a number of connections, or 0 for all")
    node = Node.look(settings)
    connections, notes = read(node, options.all)
    told = node.notes_on(connection.service for connection in connections)
    return listing(connections, options.only, options.limit, (*told, *notes))


def _flags(parser: argparse.ArgumentParser) -> None:
    only("connections (any column)")(parser)
    parser.add_argument(
        "--all",
        action="store_true",
        help="also those that have ended, as long as they are remembered",
    )
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="at most so many (default 0: all of them)"
    )


FLOWS = Command(
    "flows",
    "the connections to Services that are translated now, by us and by kube-proxy's conntrack entries",
    "Connections to Services. PATH socket: an open socket of this node whose destination was translated when it "
    "connected (its own address is not known here; the number is its cookie, as `ss -e` shows it as sk: in "
    "hexadecimal). packet: a flow of the packet path, from outside or past the socket hooks; IDLE is the time "
    "since its last packet, give or take a second; `direct, another port` is no Service's connection, but one whose "
    "client used the port of one. kube-proxy: a conntrack entry that kube-proxy's rules made, and whose packets we leave "
    "alone; the keeper stays while there are such. An idle UDP flow is forgotten some time after its last packet.",
    _show,
    _flags,
)
