#!/usr/bin/env bash
# The page of close_lab in headless Chromium: clicks, and compares what both ends say with close_lab's stdout.
#
#   tests/lab/page.sh PATH_TO_close_lab
#
# Chromium and playwright-core are those of tests/foreign/. The last line is `N passed, M failed`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../foreign/install.sh"

[ $# = 1 ] || die "usage: page.sh PATH_TO_close_lab"
[ -x "$1" ] || die "no close_lab at $1"
install_node_clients
install_chromium
exec timeout 300 node "$here/page.mjs" "$(realpath "$1")"
