"""A node and its Services, and what rules are found to be ahead of on it."""

from pathlib import Path

from handover_agent.bypassed import Found, bypassed, outside
from handover_agent.bypassed.destinations import Span
from handover_agent.bypassed.iptables import hooked
from handover_agent.compile import NodeInfo
from handover_agent.kubeproxy.iptables import Family, Source, Variant
from handover_agent.kubeproxy.rulesets import parse
from handover_agent.objects import Service
from handover_agent.table import ip_bytes
from tests.fakes.objects import service

SAMPLES = Path(__file__).parent / "samples"
ADDRESSES = ("127.0.0.1", "::1", "192.0.2.10", "2001:db8::10")
NODE = NodeInfo("n1", local_addresses=frozenset(map(ip_bytes, ADDRESSES)))
BOTH = ["10.96.0.10", "fd00::10"]

WEB = service(
    "shop/web",
    BOTH,
    [{"name": "http", "port": 443, "nodePort": 30080}],
    type="LoadBalancer",
    ingress=[{"ip": "203.0.113.7"}],
)
KEEPS_CLIENT = service(
    "shop/log",
    "10.96.0.11",
    [{"name": "log", "protocol": "UDP", "port": 514, "nodePort": 30514}],
    type="NodePort",
    externalTrafficPolicy="Local",
)
INTERNAL = service("shop/db", "10.96.0.12", [{"name": "db", "port": 5432}])


def spans(*services: Service) -> list[Span]:
    """What is reached from outside on the node."""
    return outside(services, NODE)


def found(
    rules: str, *services: Service, table: str = "raw", family: Family = Family.IPV4, policy: str = "ACCEPT"
) -> list[str]:
    """The rules that are told of; `rules` as lines of iptables-save, the chains declared here."""
    lines = [line.strip() for line in rules.strip().split("\n")]
    chains = dict.fromkeys(line.split()[1] for line in lines if line.startswith("-A "))
    heads = [f":{chain} - [0:0]" for chain in chains if chain != "PREROUTING"]
    text = [f"*{table}", f":PREROUTING {policy} [0:0]", *heads, *lines, "COMMIT", ""]
    return [each.rule for each in in_save("\n".join(text), *services, family=family)]


def in_save(text: str, *services: Service, family: Family = Family.IPV4) -> list[Found]:
    """The same of an output of iptables-save."""
    source = Source(Variant.NFT, family)
    return bypassed(list(hooked(source, parse(text))), spans(*services))
