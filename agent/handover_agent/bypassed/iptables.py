"""iptables' tables `raw` and `mangle` as the walk sees them: pure.

Two plug-ins are known by what they write. Calico's policies before DNAT (and those that are not tracked) stand in
chains cali-pi-*: an Allow there is a mark that later chains act upon, so each of their rules counts. The AWS VPC plug-in
marks connections to the node's own addresses, so that pods on further network interfaces answer by the first one;
that matters to Services that keep the client's address.
"""

import re
from collections.abc import Iterator, Mapping

from handover_agent.bypassed.destinations import (
    Match,
    Never,
    Ports,
    Types,
    Unknown,
    addresses,
    protocols,
)
from handover_agent.bypassed.walk import Does, Hooked, Step
from handover_agent.kubeproxy.iptables import Family, Source
from handover_agent.kubeproxy.rulesets import Rule, Rules

TABLES = ("raw", "mangle")
"""Those with a chain PREROUTING that comes before `nat`'s."""
_START = "PREROUTING"

ENDING = frozenset({"DROP", "REJECT", "TARPIT", "DELUDE", "CHAOS", "STEAL", "QUEUE", "NFQUEUE", "TPROXY"})
CALICO_POLICY = re.compile(r"(?:^|-)cali-pi-")
_HARMLESS = frozenset({"", "RETURN", "LOG", "NFLOG"})
_AWS = "AWS, primary ENI"

_TEXTS = frozenset({"--comment", "--log-prefix", "--nflog-prefix", "--string", "--hex-string", "--name"})
"""Options whose value may look like an option."""
_PORTS = frozenset(
    {"--dport", "--dports", "--destination-port", "--destination-ports", "--ports", "--ctorigdstport"}
)
_ADDRESSES = frozenset({"-d", "--destination", "--dst-range", "--ctorigdst"})


def hooked(source: Source, rulesets: Mapping[str, Rules]) -> Iterator[Hooked]:
    """The chains of one of the four sets of rules."""
    for table in TABLES:
        rules = rulesets.get(table)
        start = rules.chains.get(_START) if rules is not None else None
        if rules is None or start is None:
            continue
        steps = {name: tuple(map(_step, chain.rules)) for name, chain in rules.chains.items()}
        yield Hooked(
            f"{source} {table}",
            _START,
            steps,
            frozenset({source.family is Family.IPV4}),
            drops=start.policy == "DROP",
        )


def _step(rule: Rule) -> Step:
    words = rule.words
    target = rule.target
    does, to = Does.NOTHING, ""
    if target in ENDING:
        does = Does.ENDS
    elif target == "RETURN":
        does = Does.LEAVES
    elif target == "ACCEPT":
        does = Does.ACCEPTS
    elif target:
        does, to = Does.GOES if "-g" in words else Does.JUMPS, target
    return Step(
        rule.text,
        does,
        to,
        tuple(matches(words)),
        matters=bool(CALICO_POLICY.search(rule.chain)) and target not in _HARMLESS,
        for_clients=_marks_for_aws(words, target),
    )


def _marks_for_aws(words: tuple[str, ...], target: str) -> bool:
    sets = any(word.startswith(("--set-", "--or-")) for word in words)
    return target in ("CONNMARK", "MARK") and sets and any(word.startswith(_AWS) for word in words)


def matches(words: tuple[str, ...]) -> Iterator[Match]:
    """What a rule asks that tells where a packet goes, or that no packet from outside is."""
    rest = iter(words)
    negated = False
    for word in rest:
        if word == "!":
            negated = True
            continue
        if word in _TEXTS:
            next(rest, "")
        elif word in _PORTS:
            yield Ports(_ranges(next(rest, "")), negated)
        elif word in _ADDRESSES:
            yield addresses([next(rest, "")], negated)
        elif word in ("-p", "--protocol"):
            yield protocols([next(rest, "")], negated)
        elif word == "--dst-type":
            yield Types(frozenset(next(rest, "").split(",")), negated)
        elif word == "--match-set":
            next(rest, "")
            if "dst" in next(rest, "").split(","):
                yield Unknown()
        elif word in ("-i", "--in-interface") and next(rest, "") == "lo" and not negated:
            yield Never()
        negated = False


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        low = int(first) if first.isdigit() else 0
        high = int(last) if last.isdigit() else 0xFFFF if colon or not first.isdigit() else low
        found.append((low, high))
    return tuple(found)
