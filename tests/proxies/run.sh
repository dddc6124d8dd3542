#!/usr/bin/env bash
# close_lab behind haproxy and nginx: addresses and limits by the PROXY protocol, closes with code and reason, shutdown.
#
#   tests/proxies/run.sh [PATH OF close_lab [--tls]]
#
# Without an argument the example is built first. `--tls` says that it has the feature `tls`. haproxy and nginx are installed from Debian if they are missing; a tool that cannot be had
# is a failure, never a skip. The last line is `N passed, M failed`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
. "$here/../foreign/install.sh"

stream_module=/usr/lib/nginx/modules/ngx_stream_module.so
export PATH=$PATH:/usr/sbin
if ! command -v haproxy >/dev/null || ! command -v nginx >/dev/null || [ ! -e "$stream_module" ]; then
    as_root apt-get update -q || die "apt-get update failed"
    as_root apt-get install -q -y --no-install-recommends haproxy nginx libnginx-mod-stream || die "apt-get install failed"
fi
[ -e "$stream_module" ] || die "no stream module of nginx at $stream_module"

if [ $# -ge 1 ]; then
    lab=$1
    shift
else
    (cd "$repository" && cargo build --example close_lab) || die "close_lab does not build"
    lab=${CARGO_TARGET_DIR:-$repository/target}/debug/examples/close_lab
fi
[ -x "$lab" ] || die "no close_lab at $lab"
exec timeout 300 python3 "$here/drive.py" "$(realpath "$lab")" "$@"
