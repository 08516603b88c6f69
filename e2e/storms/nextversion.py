"""Another version of the agents: other sources of the same programs, laid over those of the image, and what they compile
to, as an image of that version would have it. So programs are loaded anew, and replace what is attached.
"""

import base64
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handover_agent.loader import kept

from e2e.kube import Object
from e2e.lab.command import environment, run
from e2e.lab.paths import CHECKOUT
from e2e.migration import NAMESPACE

NAME = "next-version"
_SOURCE = "consts.h"
_PACKAGE = CHECKOUT / "agent/handover_agent"
_SOURCES = "/opt/handover/lib/python3.11/site-packages/handover_agent/bpf"  # in the image


@dataclass(frozen=True, slots=True)
class NextVersion:
    """What the other version has."""

    version: str  # of its programs
    source: str  # of other contents, with the same meaning
    programs: Mapping[str, bytes]

    def as_object(self) -> Object:
        """The ConfigMap with all of it; 330 kB of programs."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {_SOURCE: self.source},
            "binaryData": {name: base64.b64encode(code).decode() for name, code in self.programs.items()},
        }

    def pod(self, template: Mapping[str, Any]) -> Object:
        """The agents' pod with these files in the place of its own."""
        (container,) = template["spec"]["containers"]
        source = {"mountPath": f"{_SOURCES}/{_SOURCE}", "subPath": _SOURCE}
        programs = {"mountPath": f"{kept.IN_IMAGE}/{self.version}"}
        ours = [{"name": NAME, "readOnly": True, **mount} for mount in (source, programs)]
        mounts: Sequence[Any] = [*container["volumeMounts"], *ours]
        volumes = [*template["spec"]["volumes"], {"name": NAME, "configMap": {"name": NAME}}]
        return {"spec": {"containers": [{**container, "volumeMounts": mounts}], "volumes": volumes}}


def compiled() -> NextVersion:
    """Compiled on this machine, which takes some seconds. Raises CommandError."""
    with tempfile.TemporaryDirectory() as scratch:
        copy, programs = Path(scratch) / "handover_agent", Path(scratch) / "programs"
        shutil.copytree(_PACKAGE, copy)
        text = (copy / "bpf" / _SOURCE).read_text() + "// of the next version\n"
        (copy / "bpf" / _SOURCE).write_text(text)
        command = [sys.executable, "-P", "-m", "handover_agent.loader.kept", str(programs)]
        run(command, env={**environment(), "PYTHONPATH": scratch}, timeout_s=600)
        (made,) = programs.iterdir()
        return NextVersion(made.name, text, {path.name: path.read_bytes() for path in made.iterdir()})
