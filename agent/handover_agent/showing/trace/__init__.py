"""`trace`: the way of one connection, from the name to the pod, and why it is that way.

asking.py        what was asked
finding.py       what is known: the maps (ground.py, ports.py: this node), DNS (dns.py), the API (cluster.py)
destination.py   name and port → one address, port and protocol, and its frontend
path.py          socket or packet, which program, or kube-proxy's rules, and why
endpoints.py     which endpoints are chosen, which are not and why, and whether the maps agree
telling.py       all of it in words (documents.py: for programs; story.py: the answer)
"""

import argparse

from handover_agent.settings import Settings, add_flags
from handover_agent.showing.command import Command
from handover_agent.showing.trace.asking import parse_from, parse_target
from handover_agent.showing.trace.story import Story


def _show(options: argparse.Namespace, settings: Settings) -> Story:
    from handover_agent.showing.trace.finding import find_out  # noqa: PLC0415 - the others start faster without
    from handover_agent.showing.trace.telling import tell  # noqa: PLC0415

    target = parse_target(options.target, options.protocol or "")
    return tell(find_out(target, parse_from(options.start), options.domain, settings))


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="NAME|ADDRESS:PORT",
        help="where to: web, web.shop:http, shop/web:80, 10.96.0.10:53, [fd00::a]:53, UDP/10.96.0.10:53",
    )
    parser.add_argument(
        "--from",
        dest="start",
        default="",
        metavar="POD|ADDRESS",
        help="from where: a pod of this node (NAMESPACE/NAME), an address of outside, or `node` (the default)",
    )
    parser.add_argument(
        "--protocol", choices=("tcp", "udp", "sctp"), help="where both would do (default tcp)"
    )
    parser.add_argument(
        "--domain", default="cluster.local", help="the cluster's DNS domain (default cluster.local)"
    )
    add_flags(parser.add_argument_group("the API server"), ("node_name", "kubeconfig"))


TRACE = Command(
    "trace",
    "the way of one connection: name, frontend, path and why, backends and their pods",
    "Shows the way of a new connection from here: what the cluster's DNS answers, the frontend, whether the socket "
    "path, the packet path or kube-proxy's rules take it and why, the region and backends with their EndpointSlice "
    "and pod, endpoints that are left out and why, affinity, and the connections that are there already. Nothing is "
    "sent but a DNS question, when a name is given. The API server is asked for names if it can be; without it the "
    "rest is shown. Exit status 0 if the connection would be served (or needs no translation), 1 if it would be "
    "refused, dropped, or left to nobody.",
    _show,
    _flags,
)

__all__ = ["TRACE"]
