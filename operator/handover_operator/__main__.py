"""`handover-operator`: the command line."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kopf

from handover_operator import access, handlers, logs
from handover_operator.cluster import AgentPods
from handover_operator.runtime import Runtime, Settings

log = logging.getLogger(__name__)

_EPILOG = """\
It plans, and writes only: ProxyMigrations' status, NodeMigrations' spec, one label on nodes, and the
DaemonSet of kube-proxy (put back at the end). It may be killed and started again at any time. Run only one.
"""


def parser() -> argparse.ArgumentParser:
    """The command line's definition."""
    made = argparse.ArgumentParser(
        prog="handover-operator",
        description="Takes a cluster from kube-proxy to an eBPF service datapath and back.",
        epilog=_EPILOG,
    )
    agents = AgentPods()
    made.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="how to reach the API server (default: the service account, else $KUBECONFIG or ~/.kube/config)",
    )
    made.add_argument(
        "--context", metavar="NAME", help="which context of the kubeconfig (default: its current one)"
    )
    made.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", agents.namespace),
        help="where the agents' pods are (default: $POD_NAMESPACE, else %(default)s)",
    )
    made.add_argument(
        "--agent-selector",
        default=agents.labels,
        metavar="LABELS",
        help="which pods are agents (default: %(default)s)",
    )
    made.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    made.add_argument("--log-format", choices=[str(form) for form in logs.LogFormat], default="text")
    made.add_argument(
        "--liveness-port",
        type=_port,
        default=8080,
        metavar="PORT",
        help="answers GET /healthz for the liveness probe; 0 for none (default: %(default)s)",
    )
    made.add_argument(
        "--metrics-port",
        type=_port,
        default=8081,
        metavar="PORT",
        help="Prometheus metrics at GET /metrics; 0 for none (default: %(default)s)",
    )
    made.add_argument(
        "--servers-file",
        type=Path,
        metavar="FILE",
        help="remembers the API servers' own addresses, for a start while their ClusterIP leads nowhere",
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {version('handover')}")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code, 1 when it cannot start or go on."""
    options = parser().parse_args(arguments)
    try:
        way = access.find(options.kubeconfig, options.context)
        way.tls()
    except access.AccessError as error:
        sys.stderr.write(f"handover-operator: {error}\n")
        return 1
    logs.set_up(options.log_level, logs.LogFormat(options.log_format))
    agents = AgentPods(options.namespace, options.agent_selector)
    settings = Settings(way, agents, options.metrics_port, options.servers_file)
    return asyncio.run(_serve(settings, options.liveness_port))


async def _serve(settings: Settings, liveness_port: int) -> int:
    ended = asyncio.Event()
    runtime = Runtime(settings, ended)
    # By default kopf asks for the user's name, and a container's user has none.
    identity: Any = socket.gethostname()
    await kopf.operator(
        identity=identity,
        registry=handlers.registry(runtime),
        standalone=True,
        clusterwide=True,
        stop_flag=ended,
        liveness_endpoint=f"http://0.0.0.0:{liveness_port}/healthz" if liveness_port else None,
    )
    if runtime.failure is not None:
        log.error("the operator cannot go on", exc_info=runtime.failure)
        return 1
    return 0


def _port(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
