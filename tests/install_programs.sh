#!/bin/sh
# The programs that tests run and pip does not have: a browser, and Prometheus's checker of rules.
# Does nothing where they are there already.
set -eu
missing=
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
    || missing="$missing chromium"
command -v promtool >/dev/null || missing="$missing prometheus"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -eq 0 ]; then as_root=; elif command -v sudo >/dev/null; then as_root="sudo -n"; else as_root=false; fi
# RUNLEVEL=1: install Prometheus for promtool, do not start it.
if command -v apt-get >/dev/null && $as_root apt-get update -qq \
    && $as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $missing >/dev/null; then
    exit 0
fi
echo "error: the tests need$missing: install them (Debian's names) and run this again" >&2
exit 1
