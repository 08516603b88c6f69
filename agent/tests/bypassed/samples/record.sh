#!/bin/sh
# Run as root in this folder; a network namespace of its own keeps the machine's rules out of it.
set -eu
# shellcheck disable=SC2016
unshare -n sh -euc '
    nft -f before.nft
    nft -y list chains > chains.txt
    nft -j -t list ruleset inet > before.json
    nft -a -s -t list ruleset inet > before.txt
    nft -j list map inet fw verdicts > verdicts.json'
