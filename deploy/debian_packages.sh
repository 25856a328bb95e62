#!/usr/bin/env bash
# As root on Debian: installs those of the given packages that are missing, and starts none of their services. Elsewhere
# it does nothing: programs that need a package say what is missing.
set -euo pipefail

POLICY=/usr/sbin/policy-rc.d

[[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || exit 0
missing=()
for package in "$@"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0

echo "Installing ${missing[*]} ..."
if [[ ! -e $POLICY ]]; then
  # What Debian's packages ask before they start a service (deb-systemd-invoke, invoke-rc.d): 101 is "not allowed".
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod +x "$POLICY"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
