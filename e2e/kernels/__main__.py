"""`make kernels`: boot Debian's stock kernels, load the datapath on each, and write the table in docs/kernels.md."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from e2e.kernels import debian, findings, init, initramfs, machine, modules, packets, wiring
from e2e.kernels.findings import Findings
from e2e.lab import images, packages
from e2e.lab.errors import LabError
from e2e.lab.paths import CHECKOUT, cache_dir
from e2e.lab.progress import Progress

DOCUMENT = CHECKOUT / "docs/kernels.md"
BEGIN, END = "<!-- made by `make kernels` -->", "<!-- until here -->"
_PROGRAMS = {"qemu-system-x86": "qemu-system-x86_64", "kmod": "depmod", "xz-utils": "xz", "zstd": "zstd"}
_MEMORY_MIB = 3072
_OURS = "handover-e2e"
_PYTHON = "/opt/handover/bin/python"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="make kernels", description=__doc__)
    top.add_argument(
        "--kernel",
        action="append",
        choices=tuple(debian.SUITES),
        help="only this series (may be repeated; then the document is left alone)",
    )
    top.add_argument(
        "--within", type=float, default=2700.0, metavar="SECONDS", help="for each machine (%(default)s)"
    )
    top.add_argument("--verbose", action="store_true", help="show all that the machines say")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when the datapath works on every kernel."""
    options = parser().parse_args(arguments)
    progress = Progress()
    try:
        packages.ensure(_PROGRAMS, progress)
        found = [_try(series, options, progress) for series in options.kernel or debian.STABLE]
    except LabError as error:
        print(f"make kernels: {error}", file=sys.stderr)
        return 1
    print(findings.markdown(found))
    for kernel in found:
        for problem in kernel.problems:
            print(f"{kernel.release or kernel.package}: {problem}", file=sys.stderr)
    if not all(kernel.well for kernel in found):
        return 1
    if not options.kernel:
        write(DOCUMENT, found)
        progress.say(f"wrote {DOCUMENT.relative_to(CHECKOUT)}")
    return 0


def _try(series: str, options: argparse.Namespace, progress: Progress) -> Findings:
    with progress.step(f"Debian's kernel {series}"):
        kernel = debian.fetch(series)
    directory = cache_dir() / "kernels"
    image = _image(directory, progress)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".extra-") as scratch:
        extra = Path(scratch) / "extra.cpio"
        initramfs.of_files(_files(kernel), extra)
        with progress.step(f"a machine with {kernel.release}"):
            said = machine.boot(
                kernel.image, [image, extra], init.END, memory_mib=_MEMORY_MIB, within_s=options.within
            )
    if options.verbose:
        print("\n".join(said), file=sys.stderr)
    return findings.read(kernel.package, said)


def _image(directory: Path, progress: Progress) -> Path:
    """The agent's image as an initramfs, made when the image is another one."""
    agent = next(built for built in images.of_project(progress) if built.reference == images.AGENT)
    target = directory / f"{agent.archive.stem}.cpio"
    if not target.exists():
        for old in directory.glob("*.cpio"):
            old.unlink()
        with progress.step("the agent's image as an initramfs"):
            fresh = target.with_suffix(".part")
            initramfs.of_image(
                agent.archive, fresh, without=("usr/share/doc", "usr/share/man", "var/lib/dpkg")
            )
            fresh.rename(target)
    return target


def _files(kernel: debian.Kernel) -> dict[str, tuple[int, bytes]]:
    """Our init and what it imports of ours, and modules numbered in the order in which they go in."""
    script = Path(init.__file__).read_bytes()
    files = {"init": (0o755, f"#!/usr/bin/env -S PYTHONPATH=/{_OURS} {_PYTHON} -P\n".encode() + script)}
    for source in (packets, wiring):
        files[f"{_OURS}/{source.__name__.replace('.', '/')}.py"] = (
            0o644,
            Path(str(source.__file__)).read_bytes(),
        )
    dependencies = modules.parse((kernel.modules / "modules.dep").read_text())
    for number, path in enumerate(modules.in_order(dependencies, modules.WANTED)):
        name = path.rpartition("/")[2].partition(".ko")[0]
        files[f"modules/{number:02}-{name}.ko"] = (0o644, modules.plain(kernel.modules / path))
    return files


def write(document: Path, kernels: Sequence[Findings]) -> None:
    """Put the table between the document's marks."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    packages_ = ", ".join(kernel.package for kernel in kernels)
    told = f"Measured on {datetime.now(UTC):%Y-%m-%d} with {packages_}.\n\n{findings.markdown(kernels)}"
    document.write_text(f"{before}{BEGIN}\n{told}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
