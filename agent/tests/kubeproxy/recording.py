"""Runs the real kube-proxy in a network namespace of its own, against an API server that serves only
`cluster.py`.

Records the samples: as root, with KUBE_PROXY naming the binary, `python -m tests.kubeproxy.recording` in
`agent/`. Node tests use it too, when there is a binary.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kubeproxy import cluster

SAMPLES = Path(__file__).parent / "samples"
CONFIG = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
clientConnection: {{kubeconfig: {directory}/kubeconfig, contentType: application/json}}
clusterCIDR: 10.244.0.0/16,fd00:244::/48
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
mode: {mode}
"""
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "http://127.0.0.1:18080"}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
users: [{name: a, user: {}}]
"""


def binary() -> Path | None:
    """The kube-proxy to run, if there is one."""
    named = os.environ.get("KUBE_PROXY") or shutil.which("kube-proxy")
    return Path(named) if named else None


def sh(*command: str, namespace: str = "", env: dict[str, str] | None = None) -> str:
    prefix = ("ip", "netns", "exec", namespace) if namespace else ()
    done = subprocess.run([*prefix, *command], check=True, capture_output=True, text=True, env=env)
    return done.stdout


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace with the node's addresses."""
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        sh("ip", "-n", name, "addr", "add", f"{cluster.NODE_V4}/24", "dev", "eth0")
        sh("ip", "-n", name, "addr", "add", f"{cluster.NODE_V6}/64", "dev", "eth0", "nodad")
        for device in ("eth0", "eth1"):
            sh("ip", "-n", name, "link", "set", device, "up")
        yield name
    finally:
        sh("ip", "netns", "del", name)


@contextmanager
def kube_proxy(
    kube_proxy_binary: Path,
    inside: str,
    mode: str,
    backend: str = "nft",
    objects: Path | None = None,
    more: str = "",
) -> Iterator[None]:
    """kube-proxy, synced, for as long as the block lasts; its rules stay. No name: where the caller is.

    `objects` is a file of lists by kind, instead of `cluster.py`; `more` is more of kube-proxy's
    configuration.
    """
    with TemporaryDirectory() as made:
        directory = Path(made)
        (directory / "config").write_text(CONFIG.format(directory=directory, mode=mode) + more)
        (directory / "kubeconfig").write_text(KUBECONFIG)
        for tool in ("iptables", "ip6tables"):
            for suffix in ("", "-save", "-restore"):
                target = shutil.which(f"{tool}-{backend}{suffix}")
                assert target is not None
                (directory / f"{tool}{suffix}").symlink_to(target)
        (directory / "kube-proxy").symlink_to(kube_proxy_binary.resolve())
        env = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
        given = [str(objects)] if objects else []
        inside_of = ("ip", "netns", "exec", inside) if inside else ()
        with (directory / "log").open("w") as log:
            api = subprocess.Popen(
                [*inside_of, sys.executable, "-m", "tests.kubeproxy.fakeapi", "18080", *given],
                cwd=Path(__file__).parents[2],
                stderr=log,
            )
            proxy = subprocess.Popen(
                [
                    *inside_of,
                    str(directory / "kube-proxy"),
                    f"--config={directory / 'config'}",
                    f"--hostname-override={cluster.NODE}",
                    "--v=2",
                ],
                env=env,
                stdout=log,
                stderr=log,
            )
            try:
                wait_until_synced(inside_of, directory / "log")
                yield
            finally:
                for process in (proxy, api):
                    process.terminate()
                    process.wait()


def wait_until_synced(inside_of: tuple[str, ...], log: Path) -> None:
    """Until kube-proxy's own metrics say that both families have been written."""
    deadline = time.monotonic() + 60
    want = 'kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv'
    while time.monotonic() < deadline:
        answer = subprocess.run(
            [*inside_of, "curl", "-s", "http://127.0.0.1:10249/metrics"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if all(f'{want}{family}"}}' in answer and f'{want}{family}"}} 0' not in answer for family in "46"):
            return
        time.sleep(0.2)
    raise TimeoutError(f"kube-proxy did not sync; its log: {log.read_text()[-4000:]}")


def record(kube_proxy_binary: Path) -> None:
    for mode, backend in (("iptables", "nft"), ("iptables", "legacy"), ("nftables", "nft")):
        with namespace("hd-record") as inside, kube_proxy(kube_proxy_binary, inside, mode, backend):
            if mode == "iptables":
                for tool in ("iptables", "ip6tables"):
                    text = sh(f"{tool}-{backend}-save", namespace=inside)
                    (SAMPLES / f"{tool}-{backend}.save").write_text(text)
            else:
                for family in ("ip", "ip6"):
                    table = ("list", "table", family, "kube-proxy")
                    (SAMPLES / f"{family}.nft").write_text(sh("nft", *table, namespace=inside))
                    (SAMPLES / f"{family}.json").write_text(sh("nft", "-j", *table, namespace=inside))


if __name__ == "__main__":
    found = binary()
    if found is None:
        sys.exit("no kube-proxy: set KUBE_PROXY to its path")
    record(found)
