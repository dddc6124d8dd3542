#!/usr/bin/env bash
# Socket.IO clients that we did not write, unmodified, against the examples: the official client in Node, with default
# options and with each transport alone, through faulty networks and restarts; the same in headless Chromium against the
# chat; python-socketio.
#
#   socketio/tests/official/run.sh [FOLDER OF THE EXAMPLES]
#
# Without an argument the examples are built first. What is missing of the clients is installed (npm, PyPI, Debian).
# A tool that cannot be had is a failure, never a skip. The last line is `N passed, M failed`.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../../.." && pwd)
foreign=$here
. "$repository/tests/foreign/install.sh"

if [ $# -ge 1 ]; then
    examples=$(realpath "$1")
else
    (cd "$repository" && cargo build -p adjourn-socketio --examples --features admin) || die "the examples do not build"
    examples=${CARGO_TARGET_DIR:-$repository/target}/debug/examples
fi
export LAB=$examples/socketio_lab CHAT=$examples/chat ADMIN=$examples/admin
[ -x "$LAB" ] || die "no socketio_lab in $examples"
[ -x "$CHAT" ] || die "no chat in $examples"
[ -x "$ADMIN" ] || die "no admin in $examples (it needs the feature admin)"

install_node_clients
install_python_clients
install_chromium

passed=0
failed=0
judge() {
    local name=$1 output last
    shift
    output=$("$@" 2>&1)
    last=$(printf '%s\n' "$output" | tail -n 1)
    printf '%s: %s\n' "$name" "$output"
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
    fi
}
cd "$here"
judge "official client" node client.js
judge "official client over TLS" node tls.js
judge "faults" node faults.js
judge "chat in Chromium" node chat.js
judge "official admin page in Chromium" node admin.js
judge "python-socketio" venv/bin/python python_client.py
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
