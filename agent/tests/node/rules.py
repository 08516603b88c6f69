"""kube-proxy's recorded rules, and others' rules around them, on the node that the test is on."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from handover_agent.kubeproxy import nfacct
from tests.node.netns import run

SAMPLES = Path(__file__).parents[1] / "kubeproxy" / "samples"
MODES = ("iptables-nft", "iptables-legacy", "nftables")
TOOLS = ("iptables", "ip6tables")

# What kubelet, a CNI's portmap, Docker and a person put beside kube-proxy's rules.
FOREIGN = """
-t mangle -N KUBE-IPTABLES-HINT
-t mangle -N KUBE-KUBELET-CANARY
-t nat -N KUBE-KUBELET-CANARY
-t filter -N KUBE-KUBELET-CANARY
-t nat -N CNI-HOSTPORT-DNAT
-t nat -N CNI-DN-0123456789abcdef01234
-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-t nat -I PREROUTING -m comment --comment "before: -j KUBE-SERVICES" -j RETURN -p tcp --dport 9
-t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 8443 -j CNI-DN-0123456789abcdef01234
-t nat -A POSTROUTING -p tcp --dport 7 -j MASQUERADE
-P FORWARD DROP
-N DOCKER-USER
-I FORWARD 3 -j DOCKER-USER
-A FORWARD -p tcp -m tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -m comment --comment "quote \\"and -j DROP\\"" -j ACCEPT -p tcp --dport 11
-N KUBE-USER-OWN
-A INPUT -j KUBE-USER-OWN
-A KUBE-USER-OWN -p tcp --dport 13 -j DROP
-I OUTPUT 2 -p udp --dport 15 -j DROP
"""
_COUNTERS = re.compile(r"^\[\d+:\d+\] ")
PORTMAP = "-t nat -A CNI-DN-0123456789abcdef01234 -j KUBE-MARK-MASQ"


def require(mode: str) -> None:
    """Skips the test when this kernel has no such tables."""
    if mode == "iptables-legacy":
        try:
            run("iptables-legacy", "-t", "nat", "-S")
        except AssertionError as error:
            pytest.skip(f"this kernel has no legacy iptables: {error}")


def load(mode: str) -> None:
    """kube-proxy's recorded rules of a mode."""
    require(mode)
    if mode == "nftables":
        for family in ("ip", "ip6"):
            run("nft", "-f", "-", given=(SAMPLES / f"{family}.nft").read_text())
        return
    nfacct.ensure(["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"])
    variant = mode.removeprefix("iptables-")
    for tool in TOOLS:
        sample = (SAMPLES / f"{tool}-{variant}.save").read_text()
        run(f"{tool}-{variant}-restore", given=sample)


def load_foreign(mode: str, more: str = "") -> None:
    """Others' rules in the back end of a mode; for nftables in iptables-nft and in an nft table."""
    variant = "nft" if mode == "nftables" else mode.removeprefix("iptables-")
    for tool in TOOLS:
        for line in (FOREIGN + more).strip().splitlines():
            words = [
                re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
                for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
            ]
            position = words.index("-I") + 2 if "-I" in words else 0
            if mode == "nftables" and position and words[position].isdigit():
                words[position] = "1"  # there are no rules of kube-proxy's in this chain
            run(f"{tool}-{variant}", *words)
    run(
        "nft",
        "-f",
        "-",
        given="table inet user { chain in { type filter hook input priority 5; tcp dport 17 drop; }; }",
    )


@dataclass(frozen=True)
class State:
    """Every rule on the node, as the tools print it."""

    iptables: str
    nft: str

    def __str__(self) -> str:
        """Both, without the counters of kube-proxy's rules, which start anew with a restore."""
        others = set(foreign(self.iptables))
        lines = self.iptables.splitlines()
        bare = (line if line in others else _COUNTERS.sub("", line) for line in lines)
        return "\n".join(bare) + self.nft


def without_counters(text: str) -> str:
    """iptables-save's text with all counters taken off."""
    return re.sub(r"^(:.* )\[\d+:\d+\]$|^\[\d+:\d+\] ", r"\1", text, flags=re.MULTILINE)


def state() -> State:
    """Every rule in both back ends and families, and native nft tables (those of iptables-nft are in the
    former).

    Comments with the time are left out; counters are in, except those of legacy policies: every change of a
    table with iptables-legacy, be it `-N`, sets them to zero.
    """
    saved = ""
    for tool in TOOLS:
        for variant in ("legacy", "nft"):
            text = run(f"{tool}-{variant}-save", "-c")
            if variant == "legacy":
                text = re.sub(r"^(:[A-Z]+ (?:ACCEPT|DROP)) \[.*\]$", r"\1", text, flags=re.MULTILINE)
            saved += f"{tool}-{variant}\n" + "".join(f"{x}\n" for x in text.splitlines() if x[:1] != "#")
    native = ""
    for line in sorted(run("nft", "list", "tables").splitlines()):
        _, family, name = line.split()
        if name not in {"filter", "nat", "mangle", "raw", "security"}:
            native += run("nft", "list", "table", family, name)
    return State(saved, native)


def foreign(text: str) -> list[str]:
    """The lines of iptables' state that are not kube-proxy's by an independent reading of its documentation."""
    ours = re.compile(
        r":KUBE-(SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ|PROXY-CANARY|EXTERNAL-SERVICES|FORWARD|PROXY-FIREWALL|(SVC|SVL|"
        r"SEP|EXT|FW)-\w{16}) "
    )
    names = {match[0][1:-1] for match in ours.finditer(text)}
    kept = []
    for line in text.splitlines():
        bare = _COUNTERS.sub("", line)
        jump = re.search(r'--comment "kubernetes [^"]*" -j (\S+)$', bare)
        if ours.match(bare) or (bare.startswith("-A KUBE-") and bare.split()[1] in names):
            continue
        if jump and jump[1] in names:
            continue
        kept.append(line)
    return kept
