"""Python and C mean the same bytes, numbers and names; the C sources are in shape."""

import dataclasses
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from handover_agent import layout
from handover_agent.bpffs import filesystem
from handover_agent.hooks import HOOKS
from handover_agent.layout import Sizes, map_specs
from handover_agent.loader import abilities, headers, version
from handover_agent.loader.abilities import Abilities
from handover_agent.marks import Mark
from handover_agent.table import (
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    Protocol,
    Scope,
    ip_bytes,
)

pytestmark = pytest.mark.unit

BPF = Path(str(resources.files("handover_agent").joinpath("bpf")))
CLANG = ["clang", "-target", "bpf", "-O2", "-Wall", "-Werror"]


def machine_headers() -> list[str]:
    """Where Debian has this architecture's UAPI headers: clang does not look there for another target."""
    triple = subprocess.run(
        ["clang", "-print-target-triple"], capture_output=True, text=True, check=True
    ).stdout
    return ["-I", f"/usr/include/{triple.strip().replace('-pc-', '-')}"]


def constants(expressions: list[str]) -> list[int]:
    """The values of C expressions, as clang computes them."""
    lines = [f"char value{n}[({text}) + 1];" for n, text in enumerate(expressions)]
    source = '#include "kernel.h"\n#include "consts.h"\n#include "structs.h"\n' + "\n".join(lines)
    command = [
        "clang",
        "-target",
        "bpf",
        "-S",
        "-emit-llvm",
        "-o",
        "-",
        "-x",
        "c",
        "-",
        "-I",
        str(BPF),
        *machine_headers(),
    ]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found = dict(re.findall(r"^@(value\d+) = .*\[(\d+) x i8\]", done.stdout, re.MULTILINE))
    return [int(found[f"value{n}"]) - 1 for n in range(len(expressions))]


@pytest.mark.parametrize("source", ["socket.c", "packet.c"])
def test_the_programs_compile_without_bcc_and_without_a_warning(source: str) -> None:
    command = [*CLANG, *machine_headers(), "-fsyntax-only", str(BPF / source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_counters_have_the_numbers_that_c_gives_them() -> None:
    names = list(layout.counter_names())
    assert constants([f"COUNT_{name}" for name in names]) == list(range(len(names)))
    assert constants(["COUNTERS_USED", "COUNTERS_ROOM"]) == [len(names), layout.COUNTERS_ROOM]


def test_maps_have_the_numbers_and_sizes_that_c_gives_them() -> None:
    specs = map_specs(Sizes())
    assert constants([f"MAP_{spec.name.upper()}" for spec in specs]) == list(range(len(specs)))
    types = {
        "settings": ("__u32", "struct settings"),
        "frontends": ("struct frontend_key", "struct frontend"),
        "backends": ("__u32", "struct endpoint"),
        "reverse": ("struct reverse_key", "struct reverse"),
        "forward": ("struct forward_key", "struct forward"),
        "sockets": ("__u64", "struct endpoint"),
        "affinity": ("struct affinity_key", "struct affinity"),
        "counters": ("__u32", "__u64"),
        "flows": ("struct flow_key", "struct flow"),
        "fragments": ("struct fragment_key", "struct fragment"),
        "sources": ("struct source_key", "__u32"),
        "clients": ("struct address", "__u64"),
        "work": ("__u32", "char[WORK_BYTES]"),
        "stranded": ("struct flow_key", "struct endpoint"),
        "addresses": ("__u32", "struct known_group"),
        "flow_addresses": ("__u32", "struct known_group"),
    }
    sizes = constants([f"sizeof({name})" for spec in specs for name in types[spec.name]])
    assert sizes == [size for spec in specs for size in (spec.key_bytes, spec.value_bytes)]


def test_enumerations_have_the_values_that_c_gives_them() -> None:
    for prefix, enumeration in (
        ("FRONTEND", FrontendFlags),
        ("PROTOCOL", Protocol),
        ("SCOPE", Scope),
        ("MARK", Mark),
    ):
        named = [
            member
            for member in enumeration.__members__.values()
            if member.name and member is not FrontendFlags.NONE
        ]
        assert constants([f"{prefix}_{member.name}" for member in named]) == named


def test_abilities_have_the_numbers_that_c_gives_them() -> None:
    fields = [field.name for field in dataclasses.fields(Abilities)]
    assert constants([name.upper() for name in fields]) == list(range(len(fields)))
    assert constants(["8 * SOCKET_WORDS"]) == [abilities.SOCKET_BYTES]


def test_hooks_have_the_attach_types_that_c_gives_them() -> None:
    of_kernel = {
        "sock_release": "BPF_CGROUP_INET_SOCK_RELEASE",
        **{f"recvmsg{v}": f"BPF_CGROUP_UDP{v}_RECVMSG" for v in (4, 6)},
        **{f"sendmsg{v}": f"BPF_CGROUP_UDP{v}_SENDMSG" for v in (4, 6)},
        **{f"getpeername{v}": f"BPF_CGROUP_INET{v}_GETPEERNAME" for v in (4, 6)},
        **{f"connect{v}": f"BPF_CGROUP_INET{v}_CONNECT" for v in (4, 6)},
    }
    assert constants([of_kernel[hook.name] for hook in HOOKS]) == [hook.attach_type for hook in HOOKS]


def test_a_frontend_key_is_address_port_protocol_scope() -> None:
    key = FrontendKey(ip_bytes("10.96.0.10"), 0x1234, Protocol.UDP, Scope.EXTERNAL)
    packed = layout.pack_key(key)
    assert packed.hex() == "00000000000000000000ffff0a60000a" + "1234" + "11" + "01"
    assert layout.unpack_key(packed) == key


def test_a_backend_is_address_and_port() -> None:
    backend = Backend(ip_bytes("fd00::2"), 0x1234)
    assert layout.pack_backend(backend).hex() == "fd000000000000000000000000000002" + "1234" + "0000"
    assert layout.unpack_backend(layout.pack_backend(backend)) == backend


def test_a_frontend_value_survives_packing() -> None:
    value = FrontendValue(1, 2, 3, FrontendFlags.AFFINITY | FrontendFlags.DROP, 10800, 4)
    assert layout.unpack_frontend(layout.pack_frontend(value)) == value


def test_a_source_is_a_service_and_a_prefix_that_counts_both() -> None:
    packed = layout.pack_source(0x01020304, ip_bytes("198.51.100.0"), 120)
    assert packed[4:].hex() == "01020304" + "00000000000000000000ffffc6336400"
    assert layout.unpack_source(packed) == (0x01020304, ip_bytes("198.51.100.0"), 120)


def test_a_version_is_a_name_for_a_bpffs() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", version())


def headers_tree(sources: Path, release: str, flavours: list[str]) -> None:
    common = sources / f"linux-headers-{release}-common"
    (common / "include/linux").mkdir(parents=True)
    (common / "include/linux/types.h").write_text(release)
    (common / "arch/x86/include").mkdir(parents=True)
    (common / "arch/arm64/include").mkdir(parents=True)
    for flavour in flavours:
        generated = sources / f"linux-headers-{release}-{flavour}/include/generated"
        generated.mkdir(parents=True)
        (generated / "autoconf.h").write_text(flavour)


def test_the_newest_pair_of_header_packages_is_found(tmp_path: Path) -> None:
    headers_tree(tmp_path, "6.1.0-9", ["amd64"])
    headers_tree(tmp_path, "6.1.0-56", ["amd64"])
    headers_tree(tmp_path, "6.12.1", [])  # without a flavour: of no use
    common, flavour = headers.packages(tmp_path)
    assert (common.name, flavour.name) == ("linux-headers-6.1.0-56-common", "linux-headers-6.1.0-56-amd64")


def test_merged_headers_have_both_packages_in_them(tmp_path: Path) -> None:
    headers_tree(tmp_path, "6.1.0-9", ["amd64"])
    tree = tmp_path / "cache" / "merged"
    for _ in range(2):  # a second run finds it there
        headers.merge(*headers.packages(tmp_path), tree)
    assert (tree / "include/linux/types.h").read_text() == "6.1.0-9"
    assert (tree / "include/generated/autoconf.h").read_text() == "amd64"
    assert [path.name for path in tree.parent.iterdir()] == ["merged"]


def test_no_headers_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(headers.NoHeaders, match="apt-get install linux-headers"):
        headers.packages(tmp_path)


MOUNTINFO = r"""
22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw
33 22 0:30 / /sys/fs/bpf rw,nosuid shared:12 - bpf none rw,mode=700
40 28 0:40 / /host/a\040b rw - cgroup2 none rw
""".strip()


def test_the_file_system_of_a_path_is_that_of_its_nearest_mount_point() -> None:
    assert filesystem(MOUNTINFO, Path("/sys/fs/bpf/handover")) == "bpf"
    assert filesystem(MOUNTINFO, Path("/sys/fs/bpfx")) == "sysfs"
    assert filesystem(MOUNTINFO, Path("/sys/fs/cgroup/unified/kubepods")) == "cgroup2"
    assert filesystem(MOUNTINFO, Path("/host/a b")) == "cgroup2"
    assert filesystem(MOUNTINFO, Path("/var")) == ""


def test_the_agent_does_not_import_bcc() -> None:
    script = "import sys, handover_agent.datapath; sys.exit('bcc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
