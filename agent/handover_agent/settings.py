"""What an agent is told by its pod: environment variables, each of which a flag overrides.

Everything has a default that is right in the manifests; a wrong value ends the start with a message that
names it.
"""

import argparse
import os
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, ValidationError, field_validator

from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.state import State

PREFIX = "HANDOVER_"


class SettingsError(Exception):
    """A setting cannot be used: names it, and says what was expected."""


class Settings(BaseModel):
    """The agent's settings. An environment variable is called HANDOVER_ and the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_name: str = Field(default="", description="this node's name in the cluster (also: NODE_NAME)")
    pins: Path = Field(
        default=Path("/sys/fs/bpf/handover"), description="our directory in the BPF file system"
    )
    cgroup: Path | None = Field(
        default=None, description="the node's cgroup v2 root; found below --cgroup-search if not given"
    )
    cgroup_search: Path = Field(
        default=Path("/host/cgroup"), description="where the node's cgroup tree is mounted"
    )
    state_dir: Path = Field(
        default=Path("/var/lib/handover"), description="journal, snapshot, remembered API servers"
    )
    kubeconfig: Path | None = Field(default=None, description="instead of the pod's ServiceAccount")
    health_port: int = Field(
        default=10266, ge=1, le=65535, description="the agent's own /livez, /readyz and /metrics"
    )
    proxy_health_port: int = Field(
        default=10256, ge=1, le=65535, description="kube-proxy's health port, taken over"
    )
    proxy_metrics_host: IPvAnyAddress | Literal["as-found", "none"] = Field(
        default="as-found",
        description="the address of kube-proxy's metrics, taken over: where it listened; none: not at all",
    )
    proxy_metrics_port: int = Field(
        default=10249, ge=1, le=65535, description="kube-proxy's metrics port, taken over"
    )
    frontends: int = Field(default=65536, ge=16, le=1 << 20, description="least room for frontends; it grows")
    backends: int = Field(default=262144, ge=16, le=1 << 24, description="least room for backends; it grows")
    socket_path: Literal["everywhere", "node"] = Field(
        default="everywhere",
        description="whose connections are translated at the socket: everywhere, or those of the node's own network "
        "namespace only, where a mesh or a nested cluster redirects connections within pods; the packet path takes "
        "all others",
    )
    node_port_addresses: str = Field(
        default="",
        description="where NodePorts are: CIDRs or `primary`, with commas; as kube-proxy's rules have it if not given",
    )
    heartbeat_s: float = Field(
        default=5.0, gt=0, description="seconds between two status writes without news"
    )
    verify_s: float = Field(default=30.0, gt=0, description="seconds between two looks at the kernel's maps")
    probe_s: float = Field(
        default=5.0, gt=0, description="seconds between two rounds of probes while serving"
    )
    grace_s: float = Field(
        default=10.0, ge=0, description="seconds that translated UDP sockets get to end before unloading"
    )
    dead_man_s: float = Field(
        default=120.0,
        ge=0,
        description="seconds without API server after which a failing node takes itself back; 0: never",
    )
    pod_name: str = Field(default="", description="the agent's pod (also: POD_NAME)")
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def state(self) -> State:
        """What is in `state_dir`."""
        return State(self.state_dir)

    @property
    def places(self) -> NodePortPlaces | None:
        """`node_port_addresses`, if it is given."""
        cidrs = tuple(text.strip() for text in self.node_port_addresses.split(",") if text.strip())
        return NodePortPlaces(cidrs) if cidrs else None

    @field_validator("node_port_addresses")
    @classmethod
    def _cidrs(cls, value: str) -> str:
        for text in filter(None, map(str.strip, value.split(","))):
            if text != "primary":
                ip_network(text, strict=False)
        return value

    @classmethod
    def gather(cls, arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Self:
        """From the environment and the flags that were given. Raises SettingsError."""
        found: dict[str, object] = {}
        for name in cls.model_fields:
            for variable in (name.upper(), f"{PREFIX}{name.upper()}"):
                allowed = variable.startswith(PREFIX) or variable in ("NODE_NAME", "POD_NAME")
                if allowed and environ.get(variable):
                    found[name] = environ[variable]
            given = getattr(arguments, name, None)
            if given is not None:
                found[name] = given
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            problems = "; ".join(
                f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}) is {e['input']!r}: {e['msg']}"
                for e in error.errors()
                for name in (".".join(map(str, e["loc"])),)
            )
            raise SettingsError(f"settings: {problems}") from error


def add_flags(parser: "argparse._ActionsContainer", names: tuple[str, ...] = ()) -> None:
    """A flag for each (named) setting."""
    for name, field in Settings.model_fields.items():
        if names and name not in names:
            continue
        default = "" if field.default in (None, "") else f" (default {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=name.split("_")[-1].upper(),
            help=f"{field.description or name.replace('_', ' ')}{default}",
        )
