"""Which rules decide about packets from outside by where these go: the way of a packet through chains, pure.

A rule is told of when it ends packets (drops them, say) that may be for a Service, and on the way to it something
looked at the destination: the rule itself, a jump that led to it, or an exception before it (what is let through by its
port is another packet once it has its backend's port). A drop that asks about sources alone does after our programs
what it did before, and is not told of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from handover_agent.bypassed.destinations import Match, Span, narrow
from handover_agent.kubeproxy.command import bytes_of

_MOST = 20


class Does(Enum):
    """What a rule does with a packet that it matches, as far as it matters here."""

    ENDS = "ends"  # nobody sees it any more, or a program decides
    LEAVES = "leaves"  # what comes after in this chain does not see it
    ACCEPTS = "accepts"  # nor what comes after in the chains that led here
    JUMPS = "jumps"
    GOES = "goes"  # jumps, and does not come back
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Step:
    """A rule. `matters`: it is told of wherever it looks; `for_clients`: if Services keep the client's address."""

    text: str
    does: Does = Does.NOTHING
    to: str = ""
    matches: tuple[Match, ...] = ()
    matters: bool = False
    for_clients: bool = False

    @property
    def looks(self) -> bool:
        """Whether it asks where a packet goes."""
        return any(match.looks for match in self.matches)


@dataclass(frozen=True, slots=True)
class Hooked:
    """A chain that packets come through before kube-proxy's DNAT, with the chains that it may lead to."""

    place: str
    start: str
    chains: Mapping[str, tuple[Step, ...]]
    families: frozenset[bool] = frozenset({True, False})
    """IPv4: True."""
    drops: bool = False
    """Its policy."""

    @property
    def decides(self) -> bool:
        """Whether there is any rule in it that could be told of."""
        return self.drops or any(
            step.does is Does.ENDS or step.matters or step.for_clients
            for steps in self.chains.values()
            for step in steps
        )


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A rule that our programs would get ahead of."""

    place: str
    rule: str

    @classmethod
    def of(cls, place: str, chain: str, text: str) -> Self:
        """In characters that the API takes: a rule's comment may be any bytes."""
        return cls(place, bytes_of(f"{chain}: {text}").decode("utf-8", "replace"))


def bypassed(hooked: Sequence[Hooked], spans: Sequence[Span]) -> list[Found]:
    """The first such rules, in the order in which they are met, each once."""
    found: dict[Found, None] = {}
    for each in hooked:
        mine = [span for span in spans if span.ipv4 in each.families]
        if mine and each.decides:
            walk = _Walk(each, found)
            looked = walk.through(each.start, mine, looked=False)
            if each.drops and looked.beyond:
                found.setdefault(Found.of(each.place, each.start, "policy drop"))
    return list(found)[:_MOST]


@dataclass(frozen=True, slots=True)
class _Looked:
    """Whether destinations were excepted: from the rest of this chain, and from that of those that led to it."""

    rest: bool = False
    beyond: bool = False


@dataclass(slots=True)
class _Walk:
    hooked: Hooked
    found: dict[Found, None]
    seen: dict[tuple[str, bool, tuple[Span, ...]], _Looked] = field(default_factory=dict)

    def through(self, chain: str, spans: Sequence[Span], *, looked: bool) -> _Looked:
        """Walk a chain with these destinations still possible."""
        key = (chain, looked, tuple(spans))
        if key in self.seen:  # chains are shared, and their number must not make it a tree
            return self.seen[key]
        self.seen[key] = _Looked()
        rest, beyond = looked, False
        for step in self.hooked.chains.get(chain, ()):
            reached = narrow(spans, step.matches)
            if not reached:
                continue
            here = rest or step.looks
            if self._told(step, reached, here):
                self.found.setdefault(Found.of(self.hooked.place, chain, step.text))
            if step.does in (Does.JUMPS, Does.GOES):
                below = self.through(step.to, reached, looked=here)
                beyond |= below.beyond
                rest |= below.beyond
            if step.does is Does.ACCEPTS:
                beyond |= here
            if step.does in (Does.ACCEPTS, Does.LEAVES, Does.GOES):
                rest |= step.looks
        self.seen[key] = _Looked(rest, beyond)
        return self.seen[key]

    def _told(self, step: Step, reached: Sequence[Span], looked: bool) -> bool:
        if step.for_clients:
            return any(span.keeps_client for span in reached)
        return step.matters or (step.does is Does.ENDS and looked)
