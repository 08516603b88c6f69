"""The program that runs on every node, in a pod and beside the node's own processes, and uses Services as
people do.

It is alone in its container: the standard library only, relative imports only, no state outside of the
process. One thread and one epoll loop carry some hundred sockets, because the thing to be measured shares
two cores with it.
"""
