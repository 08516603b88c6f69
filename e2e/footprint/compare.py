"""Texts of tools made comparable, and the difference of two of them. Pure functions of what the tools
print.
"""

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# where (a node, or the cluster) / what → lines
Footprint = Mapping[str, Sequence[str]]

_IPTABLES_TABLES = {"raw", "mangle", "nat", "filter", "security"}
# kube-proxy writes these chains from its map of Services, in an order drawn at random at each sync. What tells one
# Service's rules from another's. (In nftables mode all this is elements of sets and maps.)
_ORDER_AT_RANDOM = {
    "KUBE-SERVICES": ("-d", "-p", "--dport"),
    "KUBE-EXTERNAL-SERVICES": ("-d", "-p", "--dport"),
    "KUBE-PROXY-FIREWALL": ("-d", "-p", "--dport"),
    "KUBE-NODEPORTS": ("-p", "--dport"),
}
# A kube-proxy in nftables mode writes this rule when it has heard of the ServiceCIDRs before its first sync, else an hour later.
_NOW_AND_THEN = ("cluster-ips-check", "Drop traffic to unallocated ClusterIPs")
_VETH = re.compile(r"\bveth[0-9a-z]+\b")
_CONTEXT_LINES = 2


def differences(before: Footprint, after: Footprint) -> str:
    """A unified diff of everything that is not as it was; empty when all is."""
    lines: list[str] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, ()), after.get(name, ())
        if list(old) != list(new):
            lines += difflib.unified_diff(
                list(old), list(new), f"{name} before", f"{name} after", lineterm="", n=_CONTEXT_LINES
            )
    return "\n".join(lines)


def iptables(saved: str) -> list[str]:
    """What iptables-save prints, one table after the other."""
    tables: dict[str, list[str]] = {}
    table: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line, [])
        elif line and not line.startswith("#") and line != "COMMIT":
            table.append(re.sub(r"^(:\S+ \S+) \[\d+:\d+\]$", r"\1", line))
    return [line for name in sorted(tables) for line in (name, *_table(tables[name]))]


def _table(lines: Sequence[str]) -> list[str]:
    """A table's chains by name, each with its rules in order."""
    chains = sorted(line for line in lines if line.startswith(":"))
    rules: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("-A "):
            rules.setdefault(line.split()[1], []).append(line)
    return chains + [rule for chain in sorted(rules) for rule in _chain(chain, rules[chain])]


def _chain(chain: str, rules: list[str]) -> list[str]:
    """A chain's rules; where kube-proxy gives them no order, by what tells one Service's from another's."""
    if chain not in _ORDER_AT_RANDOM:
        return rules
    options = _ORDER_AT_RANDOM[chain]

    def match(rule: str) -> list[str]:
        return [_after(option, rule) for option in options]

    def place(rule: str) -> str:
        """The same for rules that exclude each other; one that matches in another way keeps its place."""
        return next((option for option in reversed(options) if _after(option, rule)), rule)

    def of_one_service(rule: str) -> list[str]:
        """Two Services' ports may ask for the same, as both protocols of one do for its health check; the rest of the
        order is kept.
        """
        return [*match(rule), _after("--comment", rule)]

    ordered: list[str] = []
    for _, group in itertools.groupby(rules, place):
        ordered += sorted(group, key=of_one_service)
    return ordered


def _after(option: str, rule: str) -> str:
    found = re.search(rf"(?<= ){option} (\S+)", rule)
    return found[1] if found else ""


def nft(ruleset: str) -> list[str]:
    """What `nft -j list ruleset` prints: a line for each table, chain, set, element and rule.

    The rules of iptables' own tables are left to iptables-save, which nft cannot print in full.
    """
    lines: list[str] = []
    rules: dict[str, list[str]] = {}
    for item in json.loads(ruleset)["nftables"]:
        ((kind, body),) = item.items()
        if kind == "metainfo":
            continue
        where = f"{body['family']} {body.get('table', body.get('name'))}"
        of_iptables = body["family"] in {"ip", "ip6"} and where.split()[1] in _IPTABLES_TABLES
        plain = _plain(body)
        if kind == "rule":
            if not of_iptables and (body["chain"], body.get("comment")) != _NOW_AND_THEN:
                rules.setdefault(f"{where} {body['chain']}", []).append(_text(plain))
        else:
            elements = plain.pop("elem", [])
            lines.append(f"{kind} {where} {_text(plain)}")
            lines += [f"{kind} {where} {body['name']}: element {_text(e)}" for e in elements]
    return sorted(lines) + [f"rule {chain}: {rule}" for chain in sorted(rules) for rule in rules[chain]]


def _plain(value: Any) -> Any:
    """Without what counts, expires or only names a place in the kernel."""
    if isinstance(value, dict):
        if value.keys() == {"counter"}:
            return {"counter": None}
        return {name: _plain(v) for name, v in value.items() if name not in {"handle", "expires"}}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def lines_of_the_node(text: str) -> list[str]:
    """Lines in any order, without those about a pod's own device."""
    return sorted(line.strip() for line in text.splitlines() if line.strip() and not _VETH.search(line))


def links(text: str) -> list[str]:
    """What `ip -br link` prints, without the number of the peer's index."""
    return lines_of_the_node(re.sub(r"@\S+", "", text))


def sysctls(text: str) -> list[str]:
    """What `sysctl -a` prints, without what counts."""
    return [
        line for line in lines_of_the_node(text) if not line.startswith("net.netfilter.nf_conntrack_count")
    ]


def tree(paths: Iterable[str]) -> list[str]:
    """Paths in order."""
    return sorted(paths)


def attached(found: Iterable[tuple[str, str, str]]) -> list[str]:
    """Programs by cgroup, kind of hook and name; a pod's cgroup without its random name.

    Programs at the hook `device` are the container runtime's.
    """
    lines = []
    for cgroup, hook, program in found:
        if hook != "device":
            lines.append(f"{re.sub(r'pod[0-9a-f_-]{36}/?.*', 'POD', cgroup)} {hook} {program}")
    return sorted(lines)


def daemonset(item: Mapping[str, Any]) -> list[str]:
    """A DaemonSet as indented JSON: what people wrote, not what controllers count."""
    metadata = item["metadata"]
    annotations = {
        name: value
        for name, value in metadata.get("annotations", {}).items()
        if name != "deprecated.daemonset.template.generation"
    }
    kept = {
        "metadata": {
            "annotations": annotations,
            **{
                name: metadata[name]
                for name in ("labels", "finalizers", "ownerReferences")
                if name in metadata
            },
        },
        "spec": item["spec"],
    }
    return json.dumps(kept, indent=1, sort_keys=True).splitlines()
