"""The parts of the lab that need no root: names, addresses, arguments, keys of the cache."""

import ipaddress
import os
import subprocess
from pathlib import Path

import pytest

from e2e.lab import binaries, builder, host, images, packages, paths, pki, registries, remains
from e2e.lab.addressing import MAX_NODES, addressing, names_of_this_lab
from e2e.lab.cgroup import Hierarchies, Subtree, V1Hierarchy, parse_mounts
from e2e.lab.cli import split_kubectl
from e2e.lab.control import COMPONENTS, arguments
from e2e.lab.errors import CommandError, LabError
from e2e.lab.manifests import render
from e2e.lab.paths import Scratch
from e2e.lab.processes import Daemon, start_ticks
from e2e.lab.settings import Settings
from e2e.lab.wait import until

pytestmark = pytest.mark.unit

HYBRID = """\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
40 24 0:29 /elsewhere /var/tmp/x rw,relatime - cgroup2 cgroup2 rw
"""
PURE = "29 24 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


def test_addresses_of_a_lab_are_all_different_and_in_their_ranges() -> None:
    plan = addressing("dev", MAX_NODES)
    everything = [a for n in plan.nodes for a in (n.ipv4, n.ipv6)]
    everything += [plan.gateway4, plan.gateway6, plan.api4, plan.api6, plan.client4, plan.client6]
    assert len(set(everything)) == len(everything)
    for node in plan.nodes:
        assert ipaddress.IPv4Network(node.pods4).subnet_of(ipaddress.IPv4Network("10.244.0.0/16"))
        assert ipaddress.IPv6Network(node.pods6).subnet_of(ipaddress.IPv6Network("fd00:244::/48"))
        assert ipaddress.ip_address(node.ipv6) in ipaddress.ip_network(f"{plan.gateway6}/64", strict=False)


@pytest.mark.parametrize("name", ["", "Dev", "a-b", "1a", "x" * 16, "a/../b"])
def test_a_name_that_could_collide_or_escape_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be a lab's name"):
        addressing(name, 3)


@pytest.mark.parametrize("count", [0, -1, MAX_NODES + 1])
def test_an_impossible_size_is_refused(count: int) -> None:
    with pytest.raises(LabError, match="not possible"):
        addressing("dev", count)


def test_a_lab_whose_name_begins_with_anothers_is_not_taken_for_it() -> None:
    assert names_of_this_lab(["hl-dev-n1", "hl-devnft-n1", "other"], "dev") == ["hl-dev-n1"]


def test_cgroup_mounts_of_a_hybrid_machine_are_found() -> None:
    assert parse_mounts(HYBRID) == Hierarchies(
        Path("/sys/fs/cgroup/unified"),
        (
            V1Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), "cpu,cpuacct"),
            V1Hierarchy(Path("/sys/fs/cgroup/systemd"), "none,name=systemd"),
        ),
    )


def test_a_machine_with_cgroup_v2_alone_has_no_v1_hierarchies() -> None:
    assert parse_mounts(PURE) == Hierarchies(Path("/sys/fs/cgroup"), ())


def test_a_machine_without_cgroup_v2_is_refused() -> None:
    with pytest.raises(LabError, match="no cgroup v2"):
        parse_mounts(HYBRID.splitlines()[0])


def test_a_process_joins_the_leaf_in_v2_and_the_part_itself_in_v1(tmp_path: Path) -> None:
    where = Hierarchies(tmp_path / "u", (V1Hierarchy(tmp_path / "cpu", "cpu"),))
    part = Subtree(where, "dev").part("n1")
    for directory in (part.unified / "system", part.directories[1]):
        directory.mkdir(parents=True)
    done = subprocess.run(part.joining(["echo", "a b"]), capture_output=True, text=True, check=True)
    assert done.stdout == "a b\n"
    leaf, v1 = part.unified / "system/cgroup.procs", part.directories[1] / "cgroup.procs"
    assert int(leaf.read_text()) == int(v1.read_text()) > 1


def test_a_command_is_not_run_outside_the_cgroup_when_joining_fails(tmp_path: Path) -> None:
    part = Subtree(Hierarchies(tmp_path / "u", ()), "gone")
    done = subprocess.run(part.joining(["echo", "ran"]), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")


def test_every_component_gets_the_real_addresses_and_the_labs_own_files() -> None:
    plan, scratch = addressing("dev", 3), Scratch(Path("/scratch/dev"))
    given = arguments(plan, scratch)
    assert set(given) == set(COMPONENTS)
    assert f"--advertise-address={plan.api4}" in given["kube-apiserver"]
    assert "--kubeconfig=/scratch/dev/pki/scheduler.kubeconfig" in given["kube-scheduler"]


def test_the_api_servers_certificate_names_every_way_to_reach_it() -> None:
    plan = addressing("dev", 1)
    leaf = next(leaf for leaf in pki.leaves(plan) if leaf.name == "apiserver")
    for name in ("DNS:kubernetes.default.svc", "IP:10.96.0.1", f"IP:{plan.api4}", f"IP:{plan.api6}"):
        assert name in leaf.extensions


def test_each_kubelet_has_a_certificate_in_its_nodes_name() -> None:
    subjects = {leaf.subject for leaf in pki.leaves(addressing("dev", 2))}
    assert {"/O=system:nodes/CN=system:node:n1", "/O=system:nodes/CN=system:node:n2"} <= subjects


def test_a_manifest_with_a_name_that_nothing_sets_is_an_error() -> None:
    with pytest.raises(LabError, match="@API@"):
        render("kube-proxy.yaml", {"MODE": "iptables"})


def test_rendering_leaves_kubernetes_own_variables_alone() -> None:
    names = ("API", "MODE", "PODS4", "PODS6", "KUBE_PROXY")
    text = render("kube-proxy.yaml", dict.fromkeys(names, "X"))
    assert "--hostname-override=$(NODE_NAME)" in text


@pytest.mark.parametrize("release", ["5.10.0-30-amd64", "6.0.19"])
def test_too_old_a_kernel_is_refused_with_what_to_do(release: str) -> None:
    with pytest.raises(LabError, match=r"needs 6\.1 or newer"):
        host.check_kernel(release)


@pytest.mark.parametrize("release", ["6.1.0-56-amd64", "6.18.44-fc", "7.2.1"])
def test_newer_kernels_are_accepted(release: str) -> None:
    host.check_kernel(release)


def test_missing_root_is_said_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        host.check()


def test_only_packages_whose_program_is_missing_are_installed() -> None:
    assert packages.missing({"coreutils": "ls", "nosuch": "no-such-program-here"}) == ["nosuch"]


@pytest.mark.parametrize(
    ("said", "release"), [("go1.26.8", (1, 26)), ("go version go1.19.8 linux/amd64", (1, 19)), ("", (0, 0))]
)
def test_the_go_release_is_read(said: str, release: tuple[int, int]) -> None:
    assert binaries.parse_go_version(said) == release


def test_builds_do_not_depend_on_what_the_shell_says_about_go() -> None:
    made = binaries.build_environment("/opt/go/bin/go", {"GOFLAGS": "-race", "GOARCH": "arm64", "HOME": "/h"})
    assert made["GOFLAGS"] == "-buildvcs=false -mod=readonly"
    assert "GOARCH" not in made
    assert made["HOME"] == "/h"


def test_the_binaries_key_changes_with_the_sources(tmp_path: Path) -> None:
    program = binaries.Program("etcd", "etcd")
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd/go.mod").write_text("require a v1")
    before = binaries.key(program, tmp_path)
    (tmp_path / "etcd/go.mod").write_text("require a v2")
    assert binaries.key(program, tmp_path) != before


def test_kubernetes_is_pinned_to_the_version_that_it_says_it_is() -> None:
    module = (paths.PACKAGE / "go/kube/go.mod").read_text()
    assert f"k8s.io/kubernetes v{binaries.KUBERNETES}\n" in module


def test_a_dockerfiles_inputs_are_its_bases_and_what_it_copies() -> None:
    text = """\
FROM docker.io/library/debian:bookworm-slim AS build
COPY --chmod=0755 pyproject.toml \\
     requirements/agent.lock /src/
FROM docker.io/library/debian:bookworm-slim
COPY --from=build /venv /venv
ADD agent /src/agent
"""
    bases, copied = builder.dockerfile_inputs(text)
    assert set(bases) == {images.DEBIAN}
    assert copied == ["pyproject.toml", "requirements/agent.lock", "agent"]


def test_an_images_key_changes_with_a_files_content_and_mode_not_with_caches(tmp_path: Path) -> None:
    (tmp_path / "src/__pycache__").mkdir(parents=True)
    (file := tmp_path / "src/a.py").write_text("1")
    first = builder.digest([tmp_path / "src"])
    (tmp_path / "src/__pycache__/a.pyc").write_text("x")
    assert builder.digest([tmp_path / "src"]) == first
    file.chmod(0o755)
    assert builder.digest([tmp_path / "src"]) != first
    file.chmod(0o644)
    file.write_text("2")
    assert builder.digest([tmp_path / "src"]) != first


def test_pips_settings_come_from_files_and_the_environment_which_wins() -> None:
    listing = "\n".join(
        [
            "global.cert='/a.crt'",
            ":env:.cert='/b.crt'",
            ":env:.find-links='/w1 /w2'",
            "global.user='yes'",
            "freeze.x='1'",
        ]
    )
    assert registries.pip_settings(listing) == {"cert": "/b.crt", "find-links": "/w1 /w2"}


def test_aptsettings_for_reaching_archives_are_lent_and_others_not() -> None:
    dump = (
        'APT::Architecture "amd64";\nAcquire::http::Proxy "http://p:3128";\nAcquire::https::CaInfo "/ca";\n'
    )
    lent = registries.apt_settings(dump, lambda value: f"/lent{value}" if value.startswith("/") else value)
    assert lent == 'Acquire::http::Proxy "http://p:3128";\nAcquire::https::CaInfo "/lent/ca";\n'


def test_debians_mirror_is_read_from_either_form_of_source_file() -> None:
    deb822 = "Types: deb\nURIs: http://one.example/debian\nSuites: bookworm\n"
    classic = "# c\ndeb [signed-by=/k] http://two.example/debian bookworm main\n"
    assert registries.mirrors([deb822, classic]) == ["http://one.example/debian", "http://two.example/debian"]


def test_mounts_of_a_lab_are_told_from_another_labs() -> None:
    text = "".join(
        f"{i} 24 0:9 / {path} rw - nsfs nsfs rw\n"
        for i, path in enumerate(
            ["/run/netns/hl-dev-n1", "/run/netns/hl-devnft-n1", "/s/dev/x", "/s/devnft/x"]
        )
    )
    assert remains.mounts_of(text, "dev", Path("/s/dev")) == ["/run/netns/hl-dev-n1", "/s/dev/x"]


def test_a_pid_that_is_somebody_elses_by_now_is_not_touched() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        ticks = start_ticks(child.pid)
        assert ticks is not None
        Daemon(child.pid, ticks - 1).stop()
        assert child.poll() is None
        Daemon(child.pid, ticks).stop()
        assert child.wait(5) == -15
    finally:
        child.kill()
        child.wait()


def test_settings_come_back_as_they_were_saved_and_nonsense_is_no_lab(tmp_path: Path) -> None:
    settings = Settings("dev", 3, "nftables", "legacy")
    settings.save(tmp_path / "state")
    assert Settings.load(tmp_path / "state") == settings
    (tmp_path / "state").write_text("{")
    assert Settings.load(tmp_path / "state") is None


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(LabError, match="no mode 'ipvs'"):
        Settings("dev", 3, "ipvs", "nft")


@pytest.mark.parametrize(
    ("argv", "ours", "kubectls"),
    [
        ("--name dev kubectl -n x get pods --name y", "--name dev kubectl", "-n x get pods --name y"),
        ("kubectl --help", "kubectl", "--help"),
        ("--name=dev kubectl", "--name=dev kubectl", ""),
        ("exec n1 -- kubectl -n x", "exec n1 -- kubectl -n x", ""),
        ("--name kubectl status", "--name kubectl status", ""),
    ],
)
def test_what_follows_kubectl_is_kubectls(argv: str, ours: str, kubectls: str) -> None:
    assert split_kubectl(argv.split()) == (ours.split(), kubectls.split())


def test_waiting_in_vain_says_what_for() -> None:
    with pytest.raises(LabError, match="waiting until pigs fly"):
        until(lambda: False, what="pigs fly", timeout_s=0.01)


def test_a_failed_commands_error_quotes_it_and_the_end_of_its_output() -> None:
    error = CommandError(["ip", "link"], 2, "\n".join(map(str, range(100))))
    assert "`ip link` ended with status 2" in str(error)
    assert str(error).endswith("\n99")
