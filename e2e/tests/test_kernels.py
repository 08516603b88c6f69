"""What `make kernels` is made of: file systems out of archives, modules in order, findings out of a console."""

import stat
import tarfile
from pathlib import Path

import pytest

from e2e.kernels import __main__ as command
from e2e.kernels import findings, initramfs, modules
from e2e.kernels.findings import Findings, Program
from e2e.lab import archive

pytestmark = pytest.mark.unit


def unpack(path: Path) -> dict[str, tuple[int, bytes]]:
    """A cpio archive's files: name → mode and content, by the kernel's description of the format."""
    found: dict[str, tuple[int, bytes]] = {}
    raw, at = path.read_bytes(), 0
    while raw[at : at + 6] == b"070701":
        fields = [int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = raw[at + 110 : at + 110 + name_size - 1].decode()
        data = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, raw[data : data + size])
        at = (data + size + 3) & ~3
    raise AssertionError(f"no header at {at}")


def test_files_are_unpacked_with_their_directories_and_permissions(tmp_path: Path) -> None:
    target = tmp_path / "extra.cpio"
    initramfs.of_files({"init": (0o755, b"#!x"), "modules/a/b.ko": (0o644, b"12345")}, target)
    assert unpack(target) == {
        "modules": (stat.S_IFDIR | 0o755, b""),
        "modules/a": (stat.S_IFDIR | 0o755, b""),
        "init": (stat.S_IFREG | 0o755, b"#!x"),
        "modules/a/b.ko": (stat.S_IFREG | 0o644, b"12345"),
    }
    assert target.stat().st_size % 512 == 0  # another archive may follow


def test_an_image_is_unpacked_as_a_container_would_see_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/share/doc").mkdir(parents=True)
    (root / "usr/bin/python").write_bytes(b"elf")
    (root / "usr/bin/python").chmod(0o755)
    (root / "usr/bin/python3").hardlink_to(root / "usr/bin/python")
    (root / "usr/share/doc/much").write_bytes(b"text")
    (root / "bin").symlink_to("usr/bin")
    archive.write(tmp_path / "image.tar", "x", root)
    initramfs.of_image(tmp_path / "image.tar", tmp_path / "image.cpio", without=("usr/share/doc",))
    found = unpack(tmp_path / "image.cpio")
    assert found["usr/bin/python3"] == found["usr/bin/python"] == (stat.S_IFREG | 0o755, b"elf")
    assert found["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert "usr/share/doc/much" not in found


def layer(*names: str) -> dict[str, tarfile.TarInfo]:
    return {name: tarfile.TarInfo(name) for name in names}


def test_upper_layers_replace_and_remove_what_is_below() -> None:
    lower = layer("etc", "etc/a", "etc/b", "var", "var/x")
    upper = layer("etc/.wh.a", "etc/b", "var/.wh..wh..opq", "var/y")
    merged = initramfs.merge([lower, upper])
    assert {name: index for name, (index, _) in merged.items()} == {
        "etc": 0,
        "etc/b": 1,
        "var": 0,
        "var/y": 1,
    }


DEP = """\
kernel/net/sched/cls_bpf.ko:
kernel/net/netfilter/nft_masq.ko: kernel/net/netfilter/nf_tables.ko kernel/net/nf_nat.ko.xz
kernel/net/netfilter/nf_tables.ko: kernel/lib/libcrc32c.ko
kernel/net/nf_nat.ko.xz: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
"""


def test_modules_go_in_after_what_they_need_and_built_in_ones_are_passed_over() -> None:
    ordered = modules.in_order(modules.parse(DEP), ("veth", "nft_masq", "nf_tables", "cls_bpf"))
    assert [path.rpartition("/")[2] for path in ordered] == [
        "libcrc32c.ko",
        "nf_tables.ko",
        "nf_nat.ko.xz",
        "nft_masq.ko",
        "cls_bpf.ko",
    ]


SAID = [
    "[    1.2] something of the kernel's",
    'HANDOVER {"kind": "kernel", "release": "6.1.0-50-cloud-amd64"}',
    'HANDOVER {"kind": "features", "found": ["connect4"], "missing": [], "lacking": ["tcx"]}',
    'HANDOVER {"kind": "loaded", "seconds": 60.3}',
    '[    9.9] HANDOVER {"kind": "program", "name": "sendmsg4", "verified": 11270, "instructions": 952}',
    'HANDOVER {"kind": "program", "name": "connect4", "verified": 11403, "instructions": 966}',
    'HANDOVER {"kind": "connection", "what": "translated", "ok": true}',
    'HANDOVER {"kind": "unloaded", "left": []}',
]


def test_what_a_machine_said_becomes_findings() -> None:
    found = findings.read("linux-image 6.1", SAID)
    assert (found.release, found.lacking, found.loading_s) == ("6.1.0-50-cloud-amd64", ("tcx",), 60.3)
    assert found.programs == (Program("connect4", 11403, 966), Program("sendmsg4", 11270, 952))
    assert found.tried == ("translated",)
    assert found.well


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('HANDOVER {"kind": "error", "text": "Traceback: no"}', "Traceback: no"),
        ('HANDOVER {"kind": "connection", "what": "refused", "ok": false}', "no connection refused"),
        ('HANDOVER {"kind": "module", "name": "veth.ko", "problem": "no"}', "module veth.ko: no"),
        (
            'HANDOVER {"kind": "connection", "what": "of a pod", "ok": false, "problem": "timed out"}',
            "no connection of a pod: timed out",
        ),
        (
            'HANDOVER {"kind": "command", "name": "maps", "status": 1, "problem": "bad"}',
            "handover-agent maps: bad",
        ),
    ],
)
def test_whatever_went_wrong_is_a_problem(line: str, problem: str) -> None:
    found = findings.read("x", [*SAID, line])
    assert found.problems == (problem,)
    assert not found.well


def test_a_machine_that_ended_in_the_middle_is_not_well() -> None:
    assert findings.read("x", SAID[:-1]).problems == ("it ended before everything was tried",)


def test_the_tables_have_a_line_for_each_program_and_attempt_and_columns_for_each_kernel() -> None:
    one = Findings(
        "a", "6.1", ("tcx", "x"), programs=(Program("connect4", 11403, 966),), tried=("refused", "left")
    )
    two = Findings(
        "b", "6.12", programs=(Program("connect4", 9000, 960), Program("from_pod", 1, 2)), tried=("refused",)
    )
    assert findings.markdown([one, two]) == (
        "| program | 6.1: verified | length | 6.12: verified | length |\n"
        "|---|---:|---:|---:|---:|\n"
        "| `connect4` | 11,403 | 966 | 9,000 | 960 |\n"
        "| `from_pod` | - | - | 1 | 2 |\n"
        "\n"
        "| a connection | 6.1 | 6.12 |\n"
        "|---|---|---|\n"
        "| (features that this kernel lacks) | `tcx`, `x` | none |\n"
        "| refused | works | works |\n"
        "| left | works | - |"
    )


def test_only_what_is_between_the_marks_is_written(tmp_path: Path) -> None:
    document = tmp_path / "kernels.md"
    document.write_text(f"before\n{command.BEGIN}\nold\n{command.END}\nafter\n")
    command.write(document, [Findings("pkg 1", "6.1", programs=(Program("connect4", 1, 2),))])
    text = document.read_text()
    assert text.startswith(f"before\n{command.BEGIN}\nMeasured on ")
    assert "with pkg 1." in text
    assert "old" not in text
    assert "| 1 | 2 |\n" in text
    assert text.endswith(f"| none |\n{command.END}\nafter\n")

    command.write(document, [Findings("pkg 1", "6.1", programs=(Program("connect4", 1, 2),))])
    assert document.read_text() == text
