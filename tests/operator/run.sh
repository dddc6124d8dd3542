#!/usr/bin/env bash
# What an operator sees, by programs that we did not write: `/metrics` by curl and by the parser of Prometheus' Python client, while
# close_lab serves and while it shuts down; the console in Chromium.
#
#   tests/operator/run.sh PATH_TO_close_lab PATH_TO_console     (both built with --features metrics)
#
# With SCREENSHOTS=DIRECTORY the console is photographed, light and dark. The last line is `N passed, M failed`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../foreign/install.sh"

[ $# = 2 ] || die "usage: run.sh PATH_TO_close_lab PATH_TO_console"
for binary; do [ -x "$binary" ] || die "no program at $binary"; done
command -v curl >/dev/null || as_root apt-get install -q -y --no-install-recommends curl || die "curl is missing"
install_node_clients
install_python_clients
install_chromium

failed=0
timeout 120 "$foreign/venv/bin/python" "$here/metrics.py" "$(realpath "$1")" || failed=1
timeout 300 node "$here/console.mjs" "$(realpath "$2")" || failed=1
exit $failed
