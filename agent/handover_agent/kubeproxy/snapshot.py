"""kube-proxy's rules on disk, so that they can be put back: taken before the flush, trusted only after a
read-back.

A snapshot is a directory. Each part (an iptables table as printed, an nft table as printed) is a file named
after its own hash; `manifest.json` names the parts. The manifest is replaced by an atomic rename after all
parts are on disk, so that at every instant the directory holds one whole snapshot, the old or the new.

`flushing.json` says that a flush of the named snapshot began. While it is there, rules that are missing are
missing because of us: a snapshot taken then (the agent was killed half-way, and goes on) keeps the old
parts for them.
"""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from handover_agent.durable import sync, write_durably
from handover_agent.kubeproxy import iptables, nftables, restoring
from handover_agent.kubeproxy.command import bytes_of, text_of
from handover_agent.kubeproxy.errors import KubeProxyError, SnapshotInvalid
from handover_agent.kubeproxy.inspection import Inspection, inspect
from handover_agent.kubeproxy.iptables import Source
from handover_agent.kubeproxy.manifest import Manifest, Part, source_at
from handover_agent.kubeproxy.ownership import Owned, owned
from handover_agent.kubeproxy.rulesets import Rules, Unreadable, parse

_MANIFEST, _FLUSHING = "manifest.json", "flushing.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that was read back from disk and is whole."""

    directory: Path
    manifest: Manifest
    digest: str  # SHA-256 of the manifest's bytes, which name each part's
    rulesets: dict[Source, dict[str, Rules]]
    owned: dict[Source, dict[str, Owned]]
    nft: dict[nftables.Table, str]

    @classmethod
    def take(cls, directory: Path) -> Self:
        """Write what is in force now to disk, read it back, and ask the tools whether they would restore it.

        Raises KubeProxyError; a snapshot that was in the directory before is then still there.
        """
        inspection = inspect()
        previous = cls._interrupted(directory)
        texts = dict(_texts(inspection))
        mode = inspection.mode
        if previous is not None:
            for part in previous.manifest.parts:
                key = (part.kind, part.place, part.table)
                if _removed(inspection, part):
                    texts[key] = _read_part(directory, part)
                    mode = previous.manifest.mode
        _check(texts)
        directory.mkdir(parents=True, exist_ok=True)
        parts = [_write_part(directory, key, text) for key, text in texts.items()]
        manifest = Manifest(
            taken_at=datetime.now(UTC),
            kernel=platform.release(),
            boot_id=_boot_id(),
            mode=mode,
            parts=tuple(parts),
        )
        write_durably(directory / _MANIFEST, manifest.model_dump_json(indent=1))
        _prune(directory, {part.file for part in parts})
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a snapshot and verify each of its files. Raises SnapshotInvalid, which names the file."""
        file = directory / _MANIFEST
        raw = _read(file)
        try:
            manifest = Manifest.model_validate_json(raw)
        except ValidationError as error:
            raise SnapshotInvalid(file, f"is no manifest ({error.errors()[0]['msg']})") from error
        if manifest.version != 1:
            raise SnapshotInvalid(file, f"has version {manifest.version}, and this agent reads version 1")
        rulesets: dict[Source, dict[str, Rules]] = {}
        nft: dict[nftables.Table, str] = {}
        for part in manifest.parts:
            text = _read_part(directory, part)
            if part.kind == "nft":
                nft[part.place, part.table] = text
            else:
                try:
                    rulesets.setdefault(part.source, {})[part.table] = parse(text)[part.table]
                except (Unreadable, ValueError, KeyError) as error:
                    raise SnapshotInvalid(directory / part.file, f"is not understood ({error})") from error
        mine = {
            source: {name: owned(table) for name, table in tables.items()}
            for source, tables in rulesets.items()
        }
        return cls(directory, manifest, hashlib.sha256(raw).hexdigest(), rulesets, mine, nft)

    @property
    def filters(self) -> dict[Source, Rules]:
        """The filter tables, which say what was accepted where."""
        return {source: tables["filter"] for source, tables in self.rulesets.items() if "filter" in tables}

    @classmethod
    def is_there(cls, directory: Path) -> bool:
        """Whether there is a snapshot, whole or not."""
        return (directory / _MANIFEST).exists()

    @property
    def flushing(self) -> bool:
        """Whether a flush has begun that was not undone by a restore."""
        return (self.directory / _FLUSHING).exists()

    def begin_flush(self) -> None:
        """Record on disk that rules are removed from now on."""
        note = json.dumps({"digest": self.digest, "at": datetime.now(UTC).isoformat()})
        write_durably(self.directory / _FLUSHING, note)

    def end_flush(self) -> None:
        """Record that the rules are back."""
        (self.directory / _FLUSHING).unlink(missing_ok=True)
        sync(self.directory)

    def restore(self) -> list[str]:
        """Put kube-proxy's rules back, verify by re-reading, return what was written (see `restore`)."""
        from handover_agent.kubeproxy.restore import restore  # noqa: PLC0415 - restore needs this class

        return restore(self)

    def differences(self, inspection: Inspection) -> list[str]:
        """How the rules in force differ from the recorded ones, in kube-proxy's part; readable."""
        found: list[str] = []
        for source, tables in self.rulesets.items():
            for name, recorded in tables.items():
                now = inspection.rulesets.get(source, {}).get(name)
                mine = inspection.owned.get(source, {}).get(name)
                text = restoring.restoration(recorded, self.owned[source][name], now, mine)
                found += [f"{source} {name}: {line}" for line in text.split("\n")[1:-2]]
        for table, text in self.nft.items():
            now_text = inspection.nft.get(table)
            if now_text is None:
                found.append(f"nft table {' '.join(table)} is missing")
            elif nftables.static(now_text) != nftables.static(text):
                found.append(f"nft table {' '.join(table)} has other content")
        return found

    @classmethod
    def remove(cls, directory: Path) -> None:
        """Delete the snapshot; nothing happens when there is none."""
        if directory.exists():
            shutil.rmtree(directory)
            sync(directory.parent)

    @classmethod
    def _interrupted(cls, directory: Path) -> Self | None:
        """The snapshot whose flush has begun in this boot."""
        if not (directory / _FLUSHING).exists():
            return None
        previous = cls.load(directory)
        return previous if previous.manifest.boot_id == _boot_id() else None


Key = tuple[str, str, str]


def _texts(inspection: Inspection) -> Iterator[tuple[Key, str]]:
    for source, tables in inspection.owned.items():
        for name, mine in tables.items():
            if mine.chains or mine.jumps:
                yield (
                    ("iptables", f"{source.variant}/{source.family}", name),
                    inspection.rulesets[source][name].text,
                )
    for (family, name), text in inspection.nft.items():
        yield ("nft", family, name), text


def _removed(inspection: Inspection, part: Part) -> bool:
    """Whether nothing that a flush removes is in the place that a part was recorded from."""
    if part.kind == "nft":
        return (part.place, part.table) not in inspection.nft
    source = part.source
    mine = inspection.owned.get(source, {}).get(part.table)
    if mine is None:
        return True
    chains = inspection.rulesets[source][part.table].chains
    return not (mine.delete or mine.jumps or any(chains[chain].rules for chain in mine.empty))


def _check(texts: dict[Key, str]) -> None:
    """Whether the tools would take the parts back; proven now, since later there is no other copy."""
    for (kind, place, name), text in texts.items():
        if kind == "nft":
            nftables.check(nftables.removal((place, name)) + text)
            continue
        table = parse(text)[name]
        transaction = restoring.restoration(table, owned(table), None, None)
        if transaction:
            iptables.check(source_at(place), transaction)


def _write_part(directory: Path, key: Key, text: str) -> Part:
    raw = bytes_of(text)
    digest = hashlib.sha256(raw).hexdigest()
    kind, place, table = key
    name = f"{kind}-{place.replace('/', '-')}-{table}.{digest[:16]}"
    write_durably(directory / name, raw)
    return Part(kind=kind, place=place, table=table, file=name, sha256=digest, bytes=len(raw))


def _read_part(directory: Path, part: Part) -> str:
    file = directory / part.file
    if file.parent != directory:
        raise SnapshotInvalid(directory / _MANIFEST, f"names a file outside: {part.file}")
    raw = _read(file)
    if hashlib.sha256(raw).hexdigest() != part.sha256:
        raise SnapshotInvalid(file, "is not what was written (SHA-256 differs)")
    return text_of(raw)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SnapshotInvalid(file, f"cannot be read ({error.strerror})") from error


def _prune(directory: Path, keep: set[str]) -> None:
    """Remove files of older snapshots and of interrupted writes."""
    for file in directory.iterdir():
        if file.name not in keep | {_MANIFEST, _FLUSHING}:
            file.unlink()
    sync(directory)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError as error:
        raise KubeProxyError(f"cannot read {_BOOT_ID}: {error.strerror}") from error
