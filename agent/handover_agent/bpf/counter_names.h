/* SPDX-License-Identifier: Apache-2.0
 *
 * Every way a call can end, as COUNTER(name, "what it means"). Included where COUNTER is defined; the agent
 * reads this file too, so that C and Python cannot disagree. Names that begin with error_ are errors: in good
 * health they stay 0. Append only: a pinned map of counters outlives the programs that write it.
 */
COUNTER(connect_translated, "Connections that were sent to a backend")
COUNTER(sendmsg_translated, "Datagrams of unconnected sockets that were sent to a newly chosen backend")
COUNTER(sendmsg_kept, "Datagrams of unconnected sockets that were sent to the socket's earlier backend")
COUNTER(recvmsg_restored, "Datagrams received whose source was set back to the frontend")
COUNTER(getpeername_restored, "Peer names that were set back to the frontend")
COUNTER(released, "Reverse entries removed when their socket was closed")
COUNTER(other_protocol, "Calls of sockets that are neither TCP nor UDP")
COUNTER(not_a_frontend, "Calls with a destination that is not a frontend")
COUNTER(not_accepting, "Calls to a frontend left alone because new connections are not accepted")
COUNTER(refused, "Calls to a frontend without any endpoint that were refused")
COUNTER(refuse_left, "Calls to a frontend without any endpoint left to the stack (kernel before 5.18)")
COUNTER(drop_left, "Calls to a frontend whose Local policy has no local endpoint, left to the stack")
COUNTER(connected_left, "Datagrams of sockets that were connected to the frontend before we were attached")
COUNTER(backend_gone, "Sockets or clients whose earlier backend no longer belongs to the frontend")
COUNTER(affinity_new, "Connections of a client without a valid affinity entry")
COUNTER(affinity_kept, "Connections sent to the backend of the client's affinity entry")
COUNTER(affinity_expired, "Affinity entries found past their time-out")
COUNTER(recvmsg_no_entry, "Datagrams received from a source that is not a backend of ours")
COUNTER(getpeername_no_entry, "Peer names asked for of connections that are not ours")
COUNTER(release_no_entry, "Sockets closed that had no reverse entry")
COUNTER(release_truncated, "Sockets closed with more reverse entries than one program removes")
COUNTER(error_frontend_empty, "Calls to a frontend that has neither backends nor a flag that says what to do")
COUNTER(error_backend_missing, "Calls to a frontend whose region lies outside of the backend array")
COUNTER(error_backend_family, "Calls to a frontend whose backend is of the other address family")
COUNTER(error_reverse_not_written, "Calls left alone because the reverse entry could not be written")
COUNTER(error_forward_not_written, "Datagrams whose choice of backend could not be remembered")
COUNTER(error_affinity_not_written, "Connections whose affinity entry could not be written")
COUNTER(sources_left, "Calls to a load balancer that admits some sources only, left to the packet path")
