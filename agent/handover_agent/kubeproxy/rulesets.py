"""What `iptables-save` prints, as a value: tables, their chains, and the rules in order.

Rules stay the text that the tool printed, because that text is what `iptables-restore` takes back without
loss; the few things that others ask of a rule (its target, its exact matches) are derived on demand.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_TARGET = re.compile(r"(?:^| )-[jg] (\S+)")
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPED = re.compile(r"\\(.)")
_NFACCT = re.compile(r"--nfacct-name +(\S+)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a chain: `text` is everything after `-A CHAIN `."""

    chain: str
    text: str

    @property
    def target(self) -> str:
        """The chain or action that the rule jumps or goes to; empty for a rule that only counts."""
        text = _QUOTED.sub('""', self.text) if '"' in self.text else self.text
        found = _TARGET.search(text)
        return found[1] if found else ""

    @property
    def words(self) -> tuple[str, ...]:
        """The rule's words with quotes taken off."""
        return tuple(
            _ESCAPED.sub(r"\1", quoted) if quoted else plain for quoted, plain in _TOKEN.findall(self.text)
        )

    @property
    def nfacct(self) -> str:
        """The accounting object that the rule refers to, or an empty text."""
        found = _NFACCT.search(self.text) if "nfacct" in self.text else None
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain: built in when it has a policy. The counters are the policy's."""

    name: str
    policy: str | None
    packets: int
    bytes: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """One table."""

    name: str
    chains: Mapping[str, Chain]
    text: str  # as printed, from `*name` to `COMMIT`, with a final newline

    @property
    def rules(self) -> Iterator[Rule]:
        for chain in self.chains.values():
            yield from chain.rules


class Unreadable(ValueError):
    """A line that `iptables-save` does not print, or an end before COMMIT."""


def parse(text: str) -> dict[str, Rules]:
    """The tables of an `iptables-save` output by name. Raises Unreadable."""
    tables: dict[str, Rules] = {}
    name, heads, bodies, lines = (
        "",
        dict[str, tuple[str | None, int, int]](),
        dict[str, list[Rule]](),
        list[str](),
    )
    for number, line in enumerate(text.split("\n"), 1):  # splitlines splits comments, too: at U+0085, U+2028
        if not line or line[0] == "#":
            continue
        lines.append(line)
        if line[0] == "*":
            if name:
                raise Unreadable(f"line {number}: table {name} has no COMMIT")
            name, heads, bodies, lines = line[1:], {}, {}, [line]
        elif line[0] == ":" and name:
            chain, policy, counters = line[1:].split(" ", 2)
            packets, _, size = counters.strip("[]").partition(":")
            heads[chain] = (None if policy == "-" else policy, int(packets), int(size))
            bodies[chain] = []
        elif line.startswith("-A ") and name:
            _, chain, rest = (line + " ").split(" ", 2)
            if chain not in bodies:
                raise Unreadable(f"line {number}: a rule for chain {chain}, which is not declared")
            bodies[chain].append(Rule(chain, rest.rstrip(" ")))
        elif line == "COMMIT" and name:
            chains = {chain: Chain(chain, *head, tuple(bodies[chain])) for chain, head in heads.items()}
            tables[name] = Rules(name, chains, "\n".join(lines) + "\n")
            name = ""
        else:
            raise Unreadable(f"line {number}: {line[:80]!r} is not iptables-save's")
    if name:
        raise Unreadable(f"the end comes before table {name}'s COMMIT")
    return tables
