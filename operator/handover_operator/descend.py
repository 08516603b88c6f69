"""The way down of one node: the same rungs, and nothing of ours goes before kube-proxy is back.

There is no failure on the way down, because there is nothing to roll back to: what does not come true is waited for
and, after the deadline, told to a person.
"""

from datetime import datetime

from handover_api.base import Rung

from handover_operator import gates
from handover_operator.actions import Event, UndrainKubeProxy
from handover_operator.orders import Context, Step, move, order
from handover_operator.reasons import Reason
from handover_operator.standing import Standing


def grounded(s: Standing, now: datetime) -> bool:
    """Nothing of ours is on the node any more, as far as anybody can say."""
    if s.node.drained:
        return False
    if s.node.migration is None:
        return True
    if s.wanted is not Rung.STANDBY:
        return False
    if s.settled:
        return True
    # An agent that never said a word has, most likely, never done a thing. If it is Ready, it will say so.
    agent = s.node.agent
    return not s.reported and (agent is None or (not agent.serves and s.overdue(now)))


def descend(s: Standing, ctx: Context) -> Step:
    """The next step down of a node that holds a slot."""
    if s.wanted is Rung.STANDBY and s.settled:
        return Step((UndrainKubeProxy(s.name),)) if s.node.drained else Step()
    block = gates.fresh(s)
    if block is not None:
        return Step((), (), block)
    if s.reached.height > s.wanted.height:
        return Step((), (), gates.settled(s))
    if s.wanted is Rung.SOLE:
        return move(s, ctx, Rung.SERVING, "kube-proxy's rules are put back")
    below_wanted = s.reached.height < s.wanted.height
    if not s.settled and not below_wanted:
        return Step((), (), gates.settled(s))
    if s.wanted is Rung.SERVING:
        return _leave_serving(s, ctx)
    if s.wanted is Rung.SHADOW:
        return move(s, ctx, Rung.STANDBY, "everything of ours is removed")
    return Step((), (), gates.settled(s))


def _leave_serving(s: Standing, ctx: Context) -> Step:
    if s.node.drained:
        event = Event(
            Reason.UNDRAINED, "its rules are in force again, kube-proxy returns to the node", s.name
        )
        return Step((order(s, ctx, Rung.SERVING), UndrainKubeProxy(s.name)), (event,))
    block = gates.kube_proxy_serves(s)
    if block is not None:
        return Step((), (), block)
    # Whether its rules are in force and do what the cluster wants, the agent sees for itself before it lets go.
    return move(s, ctx, Rung.SHADOW, "new connections are kube-proxy's again")
