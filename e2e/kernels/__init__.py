"""`make kernels`: the agent's image booted on Debian's stock kernels, where its programs are loaded and used.

debian.py      a suite's kernel, by apt, without installing it
modules.py     the few modules that are not built into it
initramfs.py   the agent's image and our init as the machine's only file system
init.py        what runs there: load, count the verifier's instructions, translate connections
wiring.py      there, too: network namespaces for a client and a pod
packets.py     there, too: what is translated packet by packet
machine.py     QEMU without KVM: slow, and the same everywhere
findings.py    what was found, as the table in docs/kernels.md
"""
