"""The rollouts that are told in `golden/`: what is wished, what happens meanwhile, and how it ends."""

from collections.abc import Callable

from handover_api.base import Feature, Rung, Target
from handover_api.nodemigration import ProxyMode
from handover_api.proxymigration import Phase
from handover_operator.facts import OwnerFacts, OwnerKind
from handover_operator.reasons import Reason

from .rollout import Happening, Rollout
from .sim import FIREWALL, OUTSIDE, Machine, World

MIGRATED = (Phase.MIGRATED, Reason.MIGRATED)
REVERSED = (Phase.REVERSED, Reason.REVERSED)
PROBES_FAILED = (Phase.STALLED, Reason.PROBES_FAILED)


def wish(*, soak: str = "5s", canary: int = 1, limit: int | str = 1, **more: object) -> dict[str, object]:
    """A spec with short times."""
    deadlines = dict.fromkeys(("standby", "shadow", "serving", "sole"), "60s")
    rollout = {"canary": canary, "maxUnavailable": limit, "soak": soak}
    return {"target": "eBPF", "rollout": rollout, "deadline": deadlines, **more}


def node(world: World, name: str) -> Machine:
    """One machine by its name."""
    return next(m for m in world.machines if m.name == name)


Condition = Callable[[World, Phase], bool]


def stands(name: str, rung: Rung) -> Condition:
    """When a node has reached a rung."""
    return lambda world, _: node(world, name).rung is rung


def phase(wanted: Phase) -> Condition:
    """When the status says so."""
    return lambda _, said: said is wanted


def set_all(world: World, **values: object) -> None:
    """The same on every machine."""
    for m in world.machines:
        for name, value in values.items():
            setattr(m, name, value)


def mis_serve(world: World, name: str = "n02") -> None:
    """From now on probes through that node's datapath fail."""
    node(world, name).mis_serves = True


def mend(world: World) -> None:
    """They no longer do."""
    set_all(world, mis_serves=False)


N02_FAILS = Happening("n02's agent begins to mis-serve", stands("n02", Rung.SHADOW), mis_serve)
DELETED = Happening("the ProxyMigration is deleted", phase(Phase.MIGRATED), World.delete)


def fix_and_change(what: str, **changes: object) -> Happening:
    """A person mends the agent and changes the spec."""

    def then(world: World) -> None:
        mend(world)
        world.change(**changes)

    return Happening(what, phase(Phase.STALLED), then)


def spoil(world: World) -> None:
    """Everything that preflight looks for."""
    node(world, "n01").missing_hooks = ("cgroup/getpeername4",)
    node(world, "n02").mode = ProxyMode.IPVS
    world.owners = (OwnerFacts(OwnerKind.ARGO_CD, "Application kube", "a label"),)


def firewalled(*names: str) -> Callable[[World], None]:
    """These nodes get a rule before kube-proxy's DNAT."""

    def write(world: World) -> None:
        for name in names:
            node(world, name).bypassed = FIREWALL

    return write


ROLLOUTS = [
    Rollout("1 node, up and deleted", 1, wish(), [DELETED]),
    Rollout("3 nodes, one at a time", 3, wish(), ends=MIGRATED),
    Rollout(
        "3 nodes, reversed when migrated",
        3,
        wish(),
        [
            Happening(
                "spec.target: KubeProxy", phase(Phase.MIGRATED), lambda w: w.change(target=Target.KUBE_PROXY)
            )
        ],
        ends=REVERSED,
    ),
    Rollout("10 nodes in 3 zones, canary 2, then 30%", 10, wish(canary=2, limit="30%"), [DELETED], zones=3),
    Rollout(
        "6 nodes in 3 zones, no canary, all at once", 6, wish(canary=0, limit="100%"), zones=3, ends=MIGRATED
    ),
    Rollout("failing gate on the second node, rollback Node", 3, wish(), [N02_FAILS], ends=PROBES_FAILED),
    Rollout(
        "failing gate on the second node, rollback Node, then tried again",
        3,
        wish(),
        [N02_FAILS, fix_and_change("the agent is mended, spec.rollout.soak is changed")],
        ends=MIGRATED,
    ),
    Rollout(
        "failing gate on the second node, mended at once, stays down",
        3,
        wish(),
        [N02_FAILS, Happening("the agent is mended", phase(Phase.ROLLING_BACK), mend)],
        ends=PROBES_FAILED,
    ),
    Rollout(
        "failing gate on the second node, rollback All",
        3,
        wish(rollback="All"),
        [N02_FAILS],
        ends=PROBES_FAILED,
    ),
    Rollout(
        "failing gate on the second node, rollback Pause, then target KubeProxy",
        3,
        wish(rollback="Pause"),
        [N02_FAILS, fix_and_change("spec.target: KubeProxy", target=Target.KUBE_PROXY)],
        ends=REVERSED,
    ),
    Rollout(
        "loader stuck on the second node, deadline",
        3,
        wish(),
        [
            Happening(
                "n02's agent cannot load its programs",
                lambda w, _: bool((nm := node(w, "n02").migration) and nm.spec.rung is Rung.SHADOW),
                lambda w: setattr(node(w, "n02"), "stuck", True),
            )
        ],
        ends=(Phase.STALLED, Reason.DEADLINE_EXCEEDED),
    ),
    Rollout(
        "reversal in mid-way, two in flight",
        5,
        wish(canary=1, limit=2),
        [
            Happening(
                "spec.target: KubeProxy",
                stands("n03", Rung.SERVING),
                lambda w: w.change(target=Target.KUBE_PROXY),
            )
        ],
        ends=REVERSED,
    ),
    Rollout(
        "deletion in mid-way",
        3,
        wish(),
        [Happening("the ProxyMigration is deleted", stands("n02", Rung.SERVING), World.delete)],
    ),
    Rollout(
        "paused in mid-way and resumed",
        2,
        wish(),
        [
            Happening("spec.paused: true", stands("n01", Rung.SERVING), lambda w: w.change(paused=True)),
            Happening(
                "100 s later, spec.paused: false",
                lambda w, _: (w.now - node(w, "n01").rung_since).total_seconds() > 100,
                lambda w: w.change(paused=False),
            ),
        ],
        ends=MIGRATED,
    ),
    Rollout(
        "held for a NodePort, then acknowledged",
        3,
        wish(),
        [
            Happening(
                "spec.acknowledge: [NodePort]",
                lambda w, said: said is Phase.HOLDING and all(m.rung is Rung.SERVING for m in w.machines),
                lambda w: w.change(acknowledge=[Feature.NODE_PORT]),
            )
        ],
        ends=MIGRATED,
        prepare=lambda w: setattr(w, "unserved", OUTSIDE),
        begins="Service shop/web has a NodePort",
    ),
    Rollout(
        "a firewall before DNAT on one node, then removed",
        3,
        wish(),
        [
            Happening(
                "n02's rule is removed",
                phase(Phase.STALLED),
                lambda w: setattr(node(w, "n02"), "bypassed", ()),
            )
        ],
        ends=MIGRATED,
        prepare=firewalled("n02"),
        begins="n02 has a rule before kube-proxy's DNAT that drops NodePorts",
    ),
    Rollout(
        "firewalls before DNAT in mid-way, on nodes before and after the cutover, then acknowledged",
        3,
        wish(),
        [
            Happening(
                "n01 and n02 get a rule before kube-proxy's DNAT",
                lambda w, _: bool((nm := node(w, "n02").migration) and nm.spec.rung is Rung.SHADOW),
                firewalled("n01", "n02"),
            ),
            Happening(
                "spec.acknowledge: [RulesBeforeDNAT]",
                lambda w, said: said is Phase.STALLED and node(w, "n03").rung is Rung.SOLE,
                lambda w: w.change(acknowledge=[Feature.RULES_BEFORE_DNAT]),
            ),
        ],
        ends=MIGRATED,
    ),
    Rollout(
        "DaemonSet reverted by somebody else, then the spec is changed",
        2,
        wish(),
        [
            Happening(
                "Argo CD puts kube-proxy's DaemonSet back",
                stands("n02", Rung.SHADOW),
                lambda w: setattr(w, "in_force", False),
            ),
            Happening(
                "ignoreDifferences is set, spec.rollout is changed",
                lambda w, said: said is Phase.STALLED and node(w, "n01").pod == "running",
                World.change,
            ),
        ],
        ends=MIGRATED,
    ),
    Rollout(
        "agent lost in mid-way and found again",
        2,
        wish(),
        [
            Happening(
                "n01's agent dies",
                stands("n01", Rung.SERVING),
                lambda w: setattr(node(w, "n01"), "agent", False),
            ),
            Happening(
                "n01's agent is back", phase(Phase.STALLED), lambda w: setattr(node(w, "n01"), "agent", True)
            ),
        ],
        ends=MIGRATED,
    ),
    Rollout(
        "agent lost after its node was migrated",
        3,
        wish(),
        [
            Happening(
                "n01's agent dies",
                stands("n02", Rung.SOLE),
                lambda w: setattr(node(w, "n01"), "agent", False),
            ),
            Happening(
                "n01's agent is back", phase(Phase.STALLED), lambda w: setattr(node(w, "n01"), "agent", True)
            ),
        ],
        ends=MIGRATED,
    ),
    Rollout(
        "a node joins, one leaves, one reboots",
        3,
        wish(),
        [
            Happening(
                "n02 leaves the cluster in mid-way",
                stands("n02", Rung.SERVING),
                lambda w: w.remove(node(w, "n02")),
            ),
            Happening("a node joins", phase(Phase.MIGRATED), World.add),
            Happening(
                "n01 reboots",
                lambda w, said: said is Phase.MIGRATED and len(w.machines) == 3,
                lambda w: w.reboot(node(w, "n01")),
            ),
        ],
        ends=MIGRATED,
    ),
    Rollout(
        "an agent that never becomes ready",
        3,
        wish(),
        ends=(Phase.STALLED, Reason.AGENT_NOT_READY),
        prepare=lambda w: setattr(node(w, "n03"), "agent", False),
        begins="n03 has no agent pod",
    ),
    Rollout(
        "a kernel without the hooks, IPVS, and Argo CD",
        2,
        wish(),
        [
            Happening(
                "the DaemonSet says that Argo CD yields",
                phase(Phase.STALLED),
                lambda w: setattr(
                    w, "owners", (OwnerFacts(OwnerKind.ARGO_CD, "Application kube", "a label", True),)
                ),
            )
        ],
        ends=(Phase.STALLED, Reason.KERNEL_TOO_OLD),
        prepare=spoil,
        begins="n01's kernel lacks a hook, n02 uses IPVS, the DaemonSet belongs to Argo CD",
    ),
]
