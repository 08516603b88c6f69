"""The lab of the behaviours: two nodes with kube-proxy, one in each of its modes, and one that is migrated.

`ask` is one question of one side; `expect` puts it to all sides in both families at once, and waits until all of them
say the same. A change takes a moment to reach a node, whoever serves there: so an answer counts when it is as expected,
and then has to stay so when it is asked for again.
"""

import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from handover_api.proxymigration import Phase

from e2e.behaviours import people
from e2e.behaviours.people import CLIENT, HOST, KINDS, NAMESPACE, OUTSIDE, SERVER
from e2e.behaviours.service import HTTP, UDP, Service, Where
from e2e.behaviours.sides import FAMILIES, IPTABLES, OURS, PROXIES, Side, in_words, sides
from e2e.bench.asking import Client
from e2e.kube import Kube, Object
from e2e.lab import Lab, images
from e2e.migration import Migration
from e2e.trial import Trial, TrialError, until

_LATE_S = 60.0
Expected = Collection[str] | Callable[[Side], Collection[str]]


def same(_side: Side) -> bool:
    """All sides."""
    return True


def kube_proxys(side: Side) -> bool:
    """The sides that have not been migrated."""
    return side.proxy != OURS


@dataclass(slots=True)
class Stage:
    """The handles on the lab. `open` first, `close` at the end."""

    trial: Trial
    sides: Sequence[Side]
    pods: dict[str, Object] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    asked: dict[str, Client] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(24))
    _outside: subprocess.Popen[Any] | None = None
    _made: list[Service] = field(default_factory=list)
    _number: int = 0

    @classmethod
    def open(cls, name: str) -> "Stage":
        """Bring the lab up unless it is, with everybody on it and one node migrated."""
        lab = Lab(name, nodes=len(PROXIES), mode="nftables")
        lab.up(preload_images=images.of_project(lab.progress))
        stage = cls(Trial(lab), sides(lab.nodes))
        try:
            stage._furnish()
        except BaseException:
            stage.close()
            raise
        return stage

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self.trial.lab

    @property
    def kube(self) -> Kube:
        """Its API."""
        return self.trial.kube

    def close(self) -> None:
        """Let go of the lab, which stays."""
        if self._outside is not None:
            assert self._outside.stdin is not None
            self._outside.stdin.close()
            self._outside.wait(timeout=30)
        self._pool.shutdown(cancel_futures=True)
        self.trial.close()

    # -- making things --

    def service(
        self,
        name: str,
        selector: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Service:
        """A new Service, at once with its addresses; without a selector its slices are written by hand."""
        self._number += 1
        made = Service(self.kube, f"{name}-{self._number}", self.pods)
        made.apply(
            {"ports": [HTTP, UDP], **({"selector": selector} if selector else {}), **spec}, labels or {}
        )
        self._made.append(made)
        return made

    def clear(self) -> None:
        """Take away what a test has made, but for its pods."""
        for service in self._made:
            service.delete()
        self._made.clear()

    def start(self, *wanted: Object, ready: bool = True) -> None:
        """Create pods, and return when they run (and are ready) and can be asked."""
        self.kube.apply(*wanted)
        for pod in wanted:
            name = pod["metadata"]["name"]
            there = until(f"{name} runs", lambda name=name: self._running(name, ready), 120)  # type: ignore[misc]
            self.pods[name] = there
            if not there["spec"].get("hostNetwork"):
                self.names |= {ip["ip"]: name for ip in there["status"]["podIPs"]}
            self.asked[name] = people.client(there, self.trial.fabric)

    def open_gate(self, name: str, gate: str) -> None:
        """Make a pod ready that waits for this condition."""
        conditions = [{"type": gate, "status": "True"}]
        self.kube.patch_status("Pod", name, {"status": {"conditions": conditions}}, NAMESPACE)

    def end(self, name: str, grace_s: int | None = None) -> None:
        """Begin to delete a pod."""
        self.kube.delete("Pod", name, NAMESPACE, grace_s=grace_s)

    def gone(self, name: str) -> None:
        """Return when a pod is there no more."""
        until(f"{name} is gone", lambda: self.kube.find("Pod", name, NAMESPACE) is None, 90)

    # -- asking --

    def ask(
        self, who: str, do: str, side: Side, family: int, where: Where, **fields: Any
    ) -> list[Mapping[str, Any]]:
        """What comes of one question, as often as it says by `times`."""
        host, port = where(side, family)
        client = self.asked[OUTSIDE if who == OUTSIDE else f"{who}-{side.name}" if who in KINDS else who]
        if (
            "source_port" in fields
        ):  # the one outside asks for all sides, and IPv6 sockets take IPv4's ports, too
            fields["source_port"] += 20 * side.node.address.index + (10 if family == 6 else 0)
        if who == OUTSIDE:
            fields["mark"] = side.node.address.index
        with client.asked(do, target=[host, port], **fields) as answers:
            return list(answers)

    def expect(
        self,
        who: str | Iterable[str],
        where: Where,
        answers: Expected,
        *,
        do: str = "tcp",
        only: Callable[[Side], bool] = same,
        families: Sequence[int] = FAMILIES,
        source: bool = False,
        port: bool = False,
        every: bool = True,
        within_s: float = _LATE_S,
        **fields: Any,
    ) -> None:
        """Return when everybody of these kinds on all sides gets these answers and no other; raise AssertionError
        with what they get instead.

        `source`: the answers say whom the servers saw; `port`: at which port. Of several answers each has to be seen,
        unless `every` is false: then one will do.
        """
        kinds = [who] if isinstance(who, str) else list(who)
        open_cases = [(k, s, f) for k in kinds for s in self.sides if only(s) for f in families]
        cases = list(open_cases)
        latest: dict[tuple[str, Side, int], set[str]] = {}

        def wanted(side: Side) -> set[str]:
            return set(answers(side) if callable(answers) else answers)

        def look(case: tuple[str, Side, int]) -> set[str]:
            kind, side, family = case
            many = 30 if every and len(wanted(side)) > 1 else 1
            found = self.ask(kind, do, side, family, where, **{"times": many, **fields})
            return {in_words(each, side, self.names, source=source, port=port) for each in found}

        def met(case: tuple[str, Side, int]) -> bool:
            found, need = latest.get(case, set()), wanted(case[1])
            return found == need if every else bool(found) and found <= need

        def round_of(some: list[tuple[str, Side, int]]) -> None:
            latest.update(zip(some, self._pool.map(look, some), strict=True))

        def all_said() -> bool:
            round_of(open_cases)
            open_cases[:] = [case for case in open_cases if not met(case)]
            return not open_cases

        def picture(some: list[tuple[str, Side, int]]) -> str:
            lines = [
                f"{kind} on {side}, IPv{family}: {do} {where(side, family)}: {sorted(latest[kind, side, family])}"
                f" instead of {sorted(wanted(side))}"
                for kind, side, family in some
            ]
            return "\n  " + "\n  ".join(lines)

        # Twice, if need be: on a busy machine a neighbour may be unreachable for a moment, whoever is the proxy.
        for _ in range(2):
            open_cases[:] = cases
            try:
                until("all answer alike", all_said, within_s)
            except TrialError:
                raise AssertionError(picture(open_cases)) from None
            round_of(cases)
            other = [case for case in cases if not latest[case] <= wanted(case[1])]
            if not other:
                return
        raise AssertionError(f"asked once more: {picture(other)}")

    # -- what is there from the start --

    def _furnish(self) -> None:
        self._have_both_modes()
        for node in self.lab.nodes:
            labels = {"topology.kubernetes.io/zone": f"zone-{node.name}"}
            self.kube.patch("Node", node.name, {"metadata": {"labels": labels}})
        self.kube.apply(*people.program())
        for old in people.outdated(self.kube.list("Pod", NAMESPACE)):
            self.end(old, grace_s=0)
            self.gone(old)
        self.kube.apply(*people.everybody(self.lab.nodes))
        self.lab.install()
        self.start(*people.everybody(self.lab.nodes))
        self._name_nodes()
        self._have_someone_outside()
        migration = Migration(self.trial)
        migrated = next(name for name, proxy in PROXIES.items() if proxy == OURS)
        if migration.status().phase is not Phase.MIGRATED:
            migration.go_home()  # of an earlier run that went wrong
        migration.ask("eBPF", nodeSelector={"kubernetes.io/hostname": migrated})
        migration.wait_for_phase(Phase.MIGRATED, within_s=180)
        for client in self.asked.values():
            client.wait()

    def _have_both_modes(self) -> None:
        """kube-proxy in another mode on one of the nodes: a second file in its ConfigMap, by the node's name."""
        data = self.kube.get("ConfigMap", "kube-proxy", "kube-system")["data"]
        other = next(name for name, proxy in PROXIES.items() if proxy == IPTABLES)
        files = {f"{name}.conf": data["config.conf"] for name in PROXIES}
        files[f"{other}.conf"] = data["config.conf"].replace('mode: "nftables"', 'mode: "iptables"')
        assert files[f"{other}.conf"] != data["config.conf"], data["config.conf"]
        self.kube.patch("ConfigMap", "kube-proxy", {"data": files}, "kube-system")
        daemonset = self.kube.get("DaemonSet", "kube-proxy", "kube-system")
        containers = daemonset["spec"]["template"]["spec"]["containers"]
        command = [
            "/usr/local/bin/kube-proxy",
            "--config=/var/lib/kube-proxy/$(NODE_NAME).conf",
            "--hostname-override=$(NODE_NAME)",
        ]
        if containers[0]["command"] == command:
            return  # a lab of an earlier run
        containers[0]["command"] = command
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        self.kube.patch("DaemonSet", "kube-proxy", patch, "kube-system")
        self.lab.rollout("daemonset/kube-proxy", "kube-system")

    def _running(self, name: str, ready: bool) -> Object | None:
        pod = self.kube.get("Pod", name, NAMESPACE)
        true = {"type": "Ready" if ready else "ContainersReady", "status": "True"}.items()
        conditions = pod["status"].get("conditions", [])
        there = len(pod["status"].get("podIPs", [])) == len(FAMILIES)
        return pod if there and any(true <= c.items() for c in conditions) else None

    def _name_nodes(self) -> None:
        for node in self.lab.nodes:
            shown = node.exec(["ip", "-o", "addr"]).stdout.split()
            addresses = [word.partition("/")[0] for word in shown if "/" in word]
            self.names |= {a: f"node-{node.name}" for a in addresses if a not in ("127.0.0.1", "::1")}
        self.names |= {self.lab.plan.client4: OUTSIDE, self.lab.plan.client6: OUTSIDE}

    def _have_someone_outside(self) -> None:
        """The one outside, who goes through the node whose number it marks its packets with."""
        for node in self.lab.plan.nodes:
            for family, via in (("-4", node.ipv4), ("-6", node.ipv6)):
                table = str(100 + node.index)
                route = ["ip", family, "route", "replace", "default", "via", via, "table", table]
                rule = ["ip", family, "rule", "add", "fwmark", str(node.index), "table", table]
                self.lab.client_exec(route)
                if f"lookup {table}" not in self.lab.client_exec(["ip", family, "rule"]).stdout:
                    self.lab.client_exec(rule)
        self._outside = self.lab.client_popen(
            people.outside_argv(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.asked[OUTSIDE] = people.outside(self.lab, self.trial.fabric)


__all__ = ["CLIENT", "HOST", "OUTSIDE", "SERVER", "Stage", "kube_proxys", "same"]
