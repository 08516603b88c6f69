"""What iptables-restore has to be told so that a table's part of kube-proxy goes, or is again as recorded:
pure.

Both build on `iptables-restore --noflush`: a declared chain is emptied (or made), undeclared ones keep rules,
policy and counters, and the whole table changes at its COMMIT or not at all. Jumps in built-in chains are
deleted by their text and inserted by number, so that foreign rules in these chains are never written.
"""

from collections.abc import Iterator, Sequence

from handover_agent.kubeproxy.ownership import Owned
from handover_agent.kubeproxy.rulesets import Rule, Rules


def removal(mine: Owned) -> str:
    """The transaction that removes what is kube-proxy's; empty when there is nothing."""
    lines = [f":{chain} - [0:0]" for chain in mine.delete + mine.empty]
    lines += [f"-D {rule.chain} {rule.text}" for rule in mine.jumps]
    lines += [f"-X {chain}" for chain in mine.delete]
    return _transaction(mine.table, lines)


def restoration(recorded: Rules, recorded_owned: Owned, now: Rules | None, now_owned: Owned | None) -> str:
    """The transaction that makes kube-proxy's part of a table what it was when recorded.

    Chains of kube-proxy's that were not there then go. Empty when there is no difference.
    """
    mine = now_owned or Owned(recorded.name)
    chains = dict(now.chains) if now is not None else {}
    wanted = set(recorded_owned.chains)
    write = [
        chain
        for chain in recorded_owned.chains
        if chain not in chains or chains[chain].rules != recorded.chains[chain].rules
    ]
    surplus = [chain for chain in mine.delete if chain not in wanted]
    emptied = [chain for chain in mine.empty if chain not in wanted and chains[chain].rules]
    lines = [f":{chain} - [0:0]" for chain in [*write, *surplus, *emptied]]
    lines += [f"-A {chain} {rule.text}" for chain in write for rule in recorded.chains[chain].rules]
    built_in = dict.fromkeys(rule.chain for rule in (*recorded_owned.jumps, *mine.jumps))
    for chain in built_in:
        before = recorded.chains[chain].rules if chain in recorded.chains else ()
        current = chains[chain].rules if chain in chains else ()
        lines += _moves(
            current, mine.jumps, merged(before, recorded_owned.jumps, current, mine.jumps), recorded_owned
        )
    lines += [f"-X {chain}" for chain in surplus]
    return _transaction(recorded.name, lines)


def merged(
    before: Sequence[Rule],
    before_jumps: Sequence[Rule],
    current: Sequence[Rule],
    current_jumps: Sequence[Rule],
) -> list[Rule]:
    """A built-in chain with today's foreign rules in today's order, and the recorded jumps where they were
    among them.

    A jump comes right after the foreign rule that it followed; when that one is gone, after the one before
    it, and at the top when there is none, which is where kube-proxy puts its jumps.
    """
    target = [rule for rule in current if rule not in current_jumps]
    position = 0
    for rule in before:
        if rule in before_jumps:
            target.insert(position, rule)
            position += 1
        elif rule in target[position:]:
            position = target.index(rule, position) + 1
    return target


def _moves(
    current: Sequence[Rule], current_jumps: Sequence[Rule], target: Sequence[Rule], recorded: Owned
) -> Iterator[str]:
    if list(current) == list(target):
        return
    for rule in current:
        if rule in current_jumps:
            yield f"-D {rule.chain} {rule.text}"
    for number, rule in enumerate(target, 1):
        if rule in recorded.jumps:
            yield f"-I {rule.chain} {number} {rule.text}"


def _transaction(table: str, lines: Sequence[str]) -> str:
    return "\n".join((f"*{table}", *lines, "COMMIT", "")) if lines else ""
