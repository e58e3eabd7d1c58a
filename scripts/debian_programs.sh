#!/bin/sh
# Install the programs that some tests drive, Prometheus, chromium and HAProxy: for root on Debian; nobody else's machine is changed.
# Without them those tests skip, and fail under CI=true. Nothing is started: a service would take a port of the machine.
set -eu
PATH="$PATH:/usr/sbin" which prometheus promtool chromium chromedriver haproxy > /dev/null 2>&1 && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || exit 0

policy=/usr/sbin/policy-rc.d # what packages ask before they start a service
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
quietly="-qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0"
{
    apt-get $quietly update
    apt-get $quietly install -y --no-install-recommends prometheus chromium chromium-driver haproxy > /dev/null
} || echo "Prometheus, chromium and HAProxy could not be installed: tests that need them skip" >&2
