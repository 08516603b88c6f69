"""The lab's command line."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from e2e.lab import binaries, host, images, packages, remains, signals
from e2e.lab.builder import Image
from e2e.lab.cluster import Lab
from e2e.lab.control import COMPONENTS
from e2e.lab.errors import LabError, Terminated
from e2e.lab.paths import CHECKOUT, Scratch, labs
from e2e.lab.progress import Progress
from e2e.lab.settings import BACKENDS, MODES, Settings

RUNNING, BROKEN, NOTHING = 0, 1, 3
PASSED_ON = ("exec", "kubectl", "logs")


def parser() -> argparse.ArgumentParser:
    """The options and commands."""
    top = argparse.ArgumentParser(
        prog="handover-lab",
        description="A real Kubernetes cluster on this machine: nodes are namespaces, the rest is as it is "
        "everywhere. Needs root.",
        epilog="First use: `handover-lab up` (builds Kubernetes once, 5 to 10 minutes), "
        "`handover-lab kubectl get nodes`, `handover-lab down`.",
    )
    top.add_argument(
        "--name", default="lab", help="which lab; several may run side by side (default: %(default)s)"
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(act=act)
        sub.add_argument("--name", default=argparse.SUPPRESS, help="which lab")
        return sub

    up = command("up", _up, "bring the lab up; a no-op when it is")
    up.add_argument("--nodes", type=int, default=3, help="how many nodes (default: %(default)s)")
    up.add_argument(
        "--mode", choices=MODES, default="iptables", help="kube-proxy's mode (default: %(default)s)"
    )
    up.add_argument(
        "--backend",
        choices=BACKENDS,
        default="nft",
        help="iptables back end of the nodes (default: %(default)s)",
    )
    up.add_argument(
        "--project-images",
        action="store_true",
        help="build the operator's and the agent's images and have them on every node from the start",
    )
    command("down", _down, "remove the lab completely")
    command(
        "status",
        _status,
        f"say what there is; exit status {RUNNING} running, {NOTHING} nothing there, {BROKEN} broken",
    )
    execute = command(
        "exec", _exec, "run a command on a node, or as the outside client when NODE is `client`"
    )
    execute.add_argument("node", metavar="NODE")
    execute.add_argument("rest", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    command("kubectl", _kubectl, "kubectl against the lab: what follows is kubectl's, options too")
    logs = command(
        "logs", _logs, f"print a log: {', '.join(COMPONENTS)}, a NODE (its kubelet) or NODE/containerd"
    )
    logs.add_argument("what", metavar="COMPONENT|NODE")
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing")
    load = command("load", _load, "import image archives on every node")
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    command("env", _env, 'print shell exports for other tools: eval "$(handover-lab env)"')
    command("binaries", _binaries, "build Kubernetes and the rest where missing, and print their directory")
    command(
        "images",
        _images,
        "build the operator's and the agent's images (no registry needed) and print their archives",
    )
    install = command(
        "install", _install, "build and load the images, apply the lab overlay, wait for the rollout"
    )
    install.add_argument("--overlay", type=Path, default=CHECKOUT / "manifests/overlays/lab")
    return top


def split_kubectl(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those after `kubectl`, of which none is ours whatever it looks like."""
    for i, word in enumerate(argv):
        if word == "kubectl" and argv[i - 1 : i] != ["--name"]:
            return argv[: i + 1], argv[i + 1 :]
        if not word.startswith("--name") and argv[i - 1 : i] != ["--name"]:
            break
    return argv, []


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit status."""
    given, passed_on = split_kubectl(sys.argv[1:] if argv is None else list(argv))
    options = parser().parse_args(given)
    options.passed_on = passed_on
    # What becomes another program leaves signals as they are.
    unwinding = contextlib.nullcontext() if options.command in PASSED_ON else signals.unwinding()
    try:
        host.check_root()
        with unwinding:
            status: int = options.act(options)
    except LabError as error:
        print(f"handover-lab: {error}", file=sys.stderr)
        return BROKEN
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


def _up(options: argparse.Namespace) -> int:
    lab = Lab(options.name, nodes=options.nodes, mode=options.mode, backend=options.backend)
    host.check()
    wanted = _project_images(lab.progress) if options.project_images else []
    lab.up(preload_images=wanted)
    return 0


def _down(options: argparse.Namespace) -> int:
    progress = Progress()
    if Lab(options.name, progress=progress).down():
        progress.say(f"lab {options.name} is down")
    else:
        progress.say(f"there was no lab {options.name}")
    return 0


def _status(options: argparse.Namespace) -> int:
    found = remains.of(options.name)
    if not found.anything:
        print(f"lab {options.name}: nothing: no process, namespace, mount, cgroup or file")
        if others := labs():
            print(f"other labs on this machine: {', '.join(others)}")
        return NOTHING
    saved = Settings.load(Scratch.of(options.name).state)
    problems = (
        Lab.attach(options.name).problems()
        if saved
        else ["it did not come up, or was not taken down completely"]
    )
    if not problems:
        print(f"lab {options.name}: running: {saved}")
        counts = f"{len(found.processes)} processes, {len(found.namespaces)} network namespaces"
        print(f"  {counts}, {found.files[0]}")
        return RUNNING
    print(f"lab {options.name}: broken: {'; '.join(problems)}")
    for line in found.lines():
        print(f"  {line}")
    return BROKEN


def _command(rest: list[str]) -> list[str]:
    return rest[1:] if rest[:1] == ["--"] else rest


def _exec(options: argparse.Namespace) -> int:
    command = _command(options.rest)
    if not command:
        raise LabError("no command was given", "handover-lab exec n1 -- ip address")
    lab = Lab.attach(options.name)
    _become(lab.client_argv(command) if options.node == "client" else lab.node(options.node).argv(command))


def _kubectl(options: argparse.Namespace) -> int:
    _become(Lab.attach(options.name).kubectl_argv(*options.passed_on))


def _logs(options: argparse.Namespace) -> int:
    lab = Lab.attach(options.name)
    if options.what in COMPONENTS:
        log = lab.control.log(options.what)
    else:
        node, _, what = options.what.partition("/")
        log = lab.node(node).log(what or "kubelet")
    _become(["tail", "-n", "+1", *(["-f"] if options.follow else []), str(log)])


def _load(options: argparse.Namespace) -> int:
    for archive in options.archives:
        if not archive.exists():
            raise LabError(f"there is no archive {archive}")
    Lab.attach(options.name).load([a.resolve() for a in options.archives])
    return 0


def _env(options: argparse.Namespace) -> int:
    for key, value in Lab.attach(options.name).environment().items():
        print(f"export {key}={shlex.quote(value)}")
    return 0


def _binaries(options: argparse.Namespace) -> int:
    print(binaries.ensure(Progress()))
    return 0


def _images(options: argparse.Namespace) -> int:
    for image in _project_images(Progress()):
        print(image.reference, image.archive)
    return 0


def _project_images(progress: Progress) -> list[Image]:
    packages.ensure(packages.BUILDING_IMAGES, progress)
    return images.of_project(progress)


def _install(options: argparse.Namespace) -> int:
    Lab.attach(options.name).install(options.overlay.resolve())
    return 0


def _become(argv: Sequence[str]) -> NoReturn:
    os.execvp(argv[0], list(argv))
