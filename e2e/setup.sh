#!/usr/bin/env bash
# Makes .venv with everything that the tests, the lab and the demo import. Run by make; does nothing when up to date.
# The environment is made from Debian's own interpreter: python3-bpfcc belongs to that one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '[setup] %s\n' "$*"; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "run as root: the lab makes network namespaces, cgroups and mounts"
[ -e /etc/debian_version ] || die "this is no Debian; Debian 12 or 13 is needed (apt packages by name)"

packages=(git make gcc libc6-dev python3 python3-venv python3-dev python3-bpfcc clang linux-headers-amd64
  iptables nftables conntrack ipset iproute2 libcap2-bin)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  say "apt-get install ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! .venv/bin/python -c '' 2>/dev/null; then
  say "python environment in .venv"
  rm -rf .venv
  /usr/bin/python3 -m venv --system-site-packages .venv
fi
say "python packages of requirements/dev.lock"
.venv/bin/python -m pip install --quiet --require-hashes -r requirements/dev.lock
.venv/bin/python -m pip install --quiet --no-deps --editable .
touch .venv/.up-to-date
