"""The modules that a machine needs, plain and in the order in which they can be inserted."""

import gzip
import lzma
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

WANTED = (
    *("sch_ingress", "cls_bpf", "veth", "dummy"),
    *("nf_tables", "nft_chain_nat", "nft_masq", "nft_reject_inet", "nft_ct"),
)
"""What the packet path uses and Debian does not build in; built-in ones and unknown ones are passed over."""


def in_order(dependencies: Mapping[str, list[str]], wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules and what they need, what is needed first. `dependencies`: see `parse`."""
    by_name = {_name(path): path for path in dependencies}
    found: list[str] = []

    def add(path: str) -> None:
        if path in found:
            return
        for needed in dependencies.get(path, []):
            add(needed)
        found.append(path)

    for name in wanted:
        if name in by_name:
            add(by_name[name])
    return found


def parse(text: str) -> dict[str, list[str]]:
    """modules.dep: a module's path → the paths of the modules that it needs."""
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {path: needs.split() for path, _, needs in lines}


def plain(path: Path) -> bytes:
    """A module's content, whatever it is compressed with."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":  # not in Python 3.11's library
        return subprocess.run(["zstd", "-qdc", str(path)], check=True, capture_output=True).stdout
    return path.read_bytes()


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
