"""Scenarios as text: commands, and beneath each, behind `=`, the lines that it must answer.

service NAMESPACE/NAME IP[,IP] PORTNAME:PORT[/PROTOCOL][:NODEPORT]... [field=value]... slice NAMESPACE/NAME
SERVICE PORTNAME:PORT[/PROTOCOL] ADDRESS[@NODE][:ready|:terminating|:notready][~ZONE]... delete service|slice
NAMESPACE/NAME node NAME [zone=Z] [local=IP,..] [primary=IP,..] [nodePorts=CIDR,..] [localhost=no] maps
frontends=N backends=N       new, empty maps (and a new agent) sync | changes | retry            what was
written, deleted, failed verify                            the differences that were found table
what a program finds in the maps (not what is at no port) unserved   what is reported restart | wait SECONDS |
fail OPERATION [after=N] [times=N] [key=FRONTEND] | heal | tamper delete|empty FRONTEND

Fields of a service: type, external, lb, lbProxy, ranges, affinity (seconds), itp, etp, created, label. With
HANDOVER_UPDATE_SCENARIOS=1 in the environment the answers are written into the files instead of compared.
"""

import shlex
from collections.abc import Callable, Iterator
from typing import Any

from handover_agent.compile import NodeInfo
from handover_agent.model import Model
from handover_agent.reconcile import Reconciler, SyncReport
from handover_agent.table import FrontendFlags, FrontendKey, ip_bytes
from handover_agent.unserved import BY_PACKETS, all_unserved
from handover_agent.wanted import WantedTable
from tests.fakes.clock import Clock
from tests.fakes.maps import EMPTY, FakeMaps, Fault
from tests.fakes.objects import endpoint_json, service, slice_


class Scenario:
    """One cluster, one node, one agent."""

    def __init__(self) -> None:
        self.clock, self.model = Clock(), Model()
        self.model.services_sink.replace([])
        self.model.slices_sink.replace([])
        self.wanted = WantedTable(NodeInfo("a"))
        self.maps = FakeMaps()
        self.reconciler = Reconciler(self.maps, self.clock)

    def run(self, line: str) -> list[str]:
        """The answer of one command."""
        words = shlex.split(line)
        command: Callable[..., Iterator[str]] = getattr(self, "do_" + words[0])
        plain = [word for word in words[1:] if "=" not in word]
        return list(command(*plain, **dict(word.split("=", 1) for word in words[1:] if "=" in word)))

    def do_service(self, name: str, ips: str, *ports: str, **fields: str) -> Iterator[str]:
        spec: dict[str, Any] = {"type": fields.get("type", "ClusterIP")}
        if "external" in fields:
            spec["externalIPs"] = fields["external"].split(",")
        if "ranges" in fields:
            spec["loadBalancerSourceRanges"] = fields["ranges"].split(",")
        if "affinity" in fields:
            spec["sessionAffinity"] = "ClientIP"
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": int(fields["affinity"])}}
        spec["internalTrafficPolicy"] = fields.get("itp", "Cluster")
        spec["externalTrafficPolicy"] = fields.get("etp", "Cluster")
        ingress = [{"ip": ip} for ip in fields.get("lb", "").split(",") if ip]
        ingress += [{"ip": ip, "ipMode": "Proxy"} for ip in fields.get("lbProxy", "").split(",") if ip]
        self.model.services_sink.put(
            service(
                name,
                ips.split(","),
                [_port(text) for text in ports],
                labels={label: "" for label in fields.get("label", "").split(",") if label},
                created=fields.get("created", "2026-01-01T00:00:00Z"),
                ingress=ingress,
                **spec,
            )
        )
        return iter(())

    def do_slice(
        self, name: str, owner: str, port: str, *endpoints: str, family: str = "IPv4"
    ) -> Iterator[str]:
        self.model.slices_sink.put(
            slice_(name, owner, [_endpoint(text) for text in endpoints], [_port(port)], family=family)
        )
        return iter(())

    def do_delete(self, kind: str, name: str) -> Iterator[str]:
        if kind == "service":
            self.model.services_sink.remove(service(name))
        else:
            self.model.slices_sink.remove(slice_(name))
        return iter(())

    def do_node(self, name: str, **fields: str) -> Iterator[str]:
        node = NodeInfo(
            name,
            fields.get("zone", ""),
            frozenset(map(ip_bytes, filter(None, fields.get("local", "").split(",")))),
            tuple(map(ip_bytes, filter(None, fields.get("primary", "").split(",")))),
            tuple(filter(None, fields.get("nodePorts", "").split(","))),
            fields.get("localhost") != "no",
        )
        self.wanted.set_node(node, self.model)
        return iter(())

    def do_maps(self, frontends: str, backends: str) -> Iterator[str]:
        self.maps = FakeMaps(int(frontends), int(backends))
        return self.do_restart()

    def do_restart(self) -> Iterator[str]:
        self.reconciler = Reconciler(self.maps, self.clock)
        return iter(())

    def do_sync(self) -> Iterator[str]:
        self.wanted.refresh(self.model)
        return self._report(lambda: self.reconciler.sync(self.wanted.table))

    def do_changes(self) -> Iterator[str]:
        return self._report(lambda: self.reconciler.sync_changes(self.wanted.refresh(self.model)))

    def do_retry(self) -> Iterator[str]:
        return self._report(lambda: self.reconciler.sync_changes({}))

    def do_verify(self) -> Iterator[str]:
        yield from self.reconciler.verify() or ["nothing"]

    def do_table(self) -> Iterator[str]:
        for key in sorted(key for key in self.maps.frontends if key.port):
            value = self.maps.frontends[key]
            words = [str(backend) for backend in self.maps.lookup(key) or ()]
            words += [flag.name or "" for flag in FrontendFlags if flag in value.flags and flag.value]
            words += [f"{value.affinity_timeout_s}s"] if value.affinity_timeout_s else []
            yield f"{key}  {' '.join(words)}"

    def do_unserved(self) -> Iterator[str]:
        for item in all_unserved(self.model.services.values(), BY_PACKETS):
            yield f"{item.feature} {item.service}: {item.message}"

    def do_wait(self, seconds: str) -> Iterator[str]:
        self.clock.advance(float(seconds))
        return iter(())

    def do_fail(self, operation: str, after: str = "0", times: str = "1", key: str = "") -> Iterator[str]:
        self.maps.faults.append(Fault(operation, int(after), int(times), self._key(key) if key else None))
        return iter(())

    def do_heal(self) -> Iterator[str]:
        self.maps.faults.clear()
        return iter(())

    def do_tamper(self, how: str, frontend: str) -> Iterator[str]:
        key = self._key(frontend)
        if how == "delete":
            self.maps.delete_frontends([key])
        else:
            value = self.maps.frontends[key]
            self.maps.write_backends(value.offset, [EMPTY] * value.count)
        return iter(())

    def _key(self, text: str) -> FrontendKey:
        return next(key for key in [*self.maps.frontends, *self.wanted.table] if str(key) == text)

    def _report(self, sync: Callable[[], SyncReport]) -> Iterator[str]:
        try:
            report = sync()
        except OSError as error:
            yield f"error: {error}"
            return
        yield f"written {report.written}, deleted {report.deleted}"
        for key, reason in sorted(report.failed.items()):
            yield f"failed {key}: {reason}"
        if report.retry_in_s is not None:
            yield f"again in {report.retry_in_s:.1f} s"


def replay(text: str) -> str:
    """The scenario with the answers that its commands really give."""
    scenario, lines = Scenario(), list[str]()
    for line in text.splitlines():
        if line.startswith("="):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [f"= {answer}" for answer in scenario.run(line)]
    return "\n".join(lines) + "\n"


def _port(text: str) -> dict[str, Any]:
    name, number, *node_port = text.split(":")
    port, _, protocol = number.partition("/")
    result: dict[str, Any] = {"name": name, "port": int(port), "protocol": protocol or "TCP"}
    if node_port:
        result["nodePort"] = int(node_port[0])
    return result


def _endpoint(text: str) -> dict[str, Any]:
    text, _, zone = text.partition("~")
    states: dict[str, dict[str, bool]] = {
        "ready": {"ready": True},
        "terminating": {"ready": False, "serving": True, "terminating": True},
        "notready": {"ready": False, "serving": False, "terminating": False},
    }
    head, _, state = text.rpartition(":")
    if state not in states:
        head, state = text, "ready"
    address, _, node = head.partition("@")
    made = endpoint_json(address, node or None, zones=[zone] if zone else None)
    made["conditions"] = states[state]
    return made
