"""What both resources are made of: field naming, conditions, the ladder's rungs."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "handover.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class Model(BaseModel):
    """camelCase on the wire, snake_case in Python; unknown fields are ignored, as the server prunes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Target(StrEnum):
    """Which proxy should serve the cluster."""

    EBPF = "eBPF"
    KUBE_PROXY = "KubeProxy"


class Rung(StrEnum):
    """A node's place on the ladder between kube-proxy and the eBPF agent, lowest first."""

    STANDBY = "Standby"
    SHADOW = "Shadow"
    SERVING = "Serving"
    SOLE = "Sole"

    @property
    def height(self) -> int:
        """0 for Standby up to 3 for Sole."""
        return _HEIGHT[self]


_HEIGHT = {rung: height for height, rung in enumerate(Rung)}


class Feature(StrEnum):
    """What may be lost on a node, and an owner may acknowledge: what Services ask for, and what earlier rules do."""

    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_IPS = "ExternalIPs"
    SCTP = "SCTP"
    SESSION_AFFINITY = "SessionAffinity"
    RULES_BEFORE_DNAT = "RulesBeforeDNAT"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """A condition in the form that kstatus, Argo CD and `kubectl wait` read."""

    type: str = Field(max_length=64)
    status: ConditionStatus
    observed_generation: int = 0
    last_transition_time: datetime
    reason: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=128)]
    message: str = Field(default="", max_length=4096)


class KubeProxyRef(Model):
    """The DaemonSet that runs kube-proxy."""

    namespace: str = Field(default="kube-system", min_length=1, max_length=63)
    name: str = Field(default="kube-proxy", min_length=1, max_length=253)


class ProbeSettings(Model):
    """Connections that the agent opens to Services before and after a step; compared with the baseline."""

    count: int = Field(default=50, ge=1, le=10000, description="Connections in one round of probes.")
    interval: str = Field(
        default="20ms",
        pattern=r"^([0-9]+(ms|s|m|h))+$",
        max_length=16,
        description="Pause between two connections.",
    )
    timeout: str = Field(
        default="1s",
        pattern=r"^([0-9]+(ms|s|m|h))+$",
        max_length=16,
        description="A connection that takes longer has failed.",
    )
    failure_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The share of failed connections, above the baseline's, that a gate still passes.",
    )


class Gates(Model):
    """What is measured before and after every step."""

    probes: ProbeSettings = Field(default_factory=ProbeSettings)
