"""Looks at the nodes and the cluster with the usual tools, and keeps what `compare` makes of it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from e2e.footprint import attached, compare
from e2e.footprint.compare import Footprint
from e2e.kube import Kube
from e2e.lab import Lab, Node

_SYSCTLS = r"^net\.(ipv4\.(ip_forward|vs)|netfilter\.|(ipv4|ipv6)\.conf\.(all|default|lo|eth0|cni0)\.)"
_FAMILIES = ("iptables", "ip6tables")
_BACKENDS = ("legacy", "nft")


class FootprintError(Exception):
    """A node could not be looked at; an empty answer would have looked like a clean node."""


def record(lab: Lab, kube: Kube) -> Footprint:
    """The footprint of all nodes and of kube-proxy's DaemonSet, now."""
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(2) as pool:
        for node, sections in zip(lab.nodes, pool.map(_node, lab.nodes), strict=True):
            found |= {f"{node.name}: {what}": lines for what, lines in sections.items()}
    for item in kube.list("Node"):
        labels = item["metadata"].get("labels", {})
        found[f"{item['metadata']['name']}: labels"] = sorted(f"{k}={v}" for k, v in labels.items())
        found[f"{item['metadata']['name']}: taints"] = [str(t) for t in item["spec"].get("taints", [])]
    found["kube-proxy's DaemonSet"] = compare.daemonset(kube.get("DaemonSet", "kube-proxy", "kube-system"))
    return found


def _node(node: Node) -> dict[str, list[str]]:
    """One node's sections."""
    commands = {
        "nft": "nft -j list ruleset",
        **{
            f"{family} {backend}": f"{family}-{backend}-save" for family in _FAMILIES for backend in _BACKENDS
        },
        "legacy tables": "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names || true",
        "routes": "ip -4 route show table all; ip -6 route show table all",
        "routing rules": "ip -4 rule; ip -6 rule",
        "devices": "ip -br link",
        "addresses": "ip -br addr",
        "traffic control": "tc qdisc show",
        "listening": "ss -Hltn | awk '{print $4}'",
        "sysctls": f"sysctl -a -r '{_SYSCTLS}'",
    }
    # One process that enters the node for all of them; each answer stands below a line with its name.
    script = "\n".join(
        f"echo '#:# {name}'; ( {command} ) 2>/dev/null || echo '#!# failed'"
        for name, command in commands.items()
    )
    texts: dict[str, str] = {}
    for part in node.exec(["sh", "-c", script]).stdout.split("#:# ")[1:]:
        name, _, text = part.partition("\n")
        if "#!# failed" in text:
            raise FootprintError(
                f"{node.name}: `{commands[name]}` failed, so nothing can be said about {name}"
            )
        texts[name] = text
    sections = {
        "nft": compare.nft(texts["nft"]),
        "devices": compare.links(texts["devices"]),
        "addresses": compare.links(texts["addresses"]),
        "sysctls": compare.sysctls(texts["sysctls"]),
        "BPF programs": compare.attached(attached.programs(node.cgroup)),
        "pins": compare.tree(_below(node.root / "sys/fs/bpf")),
    }
    for name in texts.keys() - sections.keys():
        if name.endswith(_BACKENDS):
            sections[name] = compare.iptables(texts[name])
        else:
            sections[name] = compare.lines_of_the_node(texts[name])
    return sections


def _below(directory: Path) -> list[str]:
    return [str(path.relative_to(directory)) for path in directory.rglob("*")]
