#!/usr/bin/env bash
# Clients that we did not write, against the examples echo and wss_echo: npm ws, Python websockets, Chromium.
#
#   tests/foreign/run.sh [PATH OF THE ECHO BINARY [PATH OF THE WSS_ECHO BINARY]]
#
# Over TLS only with the second path, or without any.
# Without an argument the example is built first. What is missing of the clients is installed here (npm, PyPI, Debian).
# A tool that cannot be had is a failure, never a skip. The last line is `N passed, M failed`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)

. "$here/install.sh"

if [ $# -ge 1 ]; then
    echo_binary=$1
else
    (cd "$repository" && cargo build --example echo) || die "the echo example does not build"
    (cd "$repository" && cargo build --example wss_echo --features tls) || die "the wss_echo example does not build"
    echo_binary=${CARGO_TARGET_DIR:-$repository/target}/debug/examples/echo
    set -- "$echo_binary" "${echo_binary%/echo}/wss_echo"
fi
[ -x "$echo_binary" ] || die "no echo binary at $echo_binary"
echo_binary=$(realpath "$echo_binary")
wss_echo_binary=
if [ $# -ge 2 ]; then
    [ -x "$2" ] || die "no wss_echo binary at $2"
    wss_echo_binary=$(realpath "$2")
fi

cd "$here"
install_node_clients
install_python_clients
install_chromium

# The server.
scratch=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap finish EXIT

# Starts the echo example with these arguments behind the address.
start_server() {
    await_server "$echo_binary" 127.0.0.1:0 "$@"
}

# Starts a server that says on which URL it listens.
await_server() {
    # What the server before it said would be read otherwise, if this one begins late.
    : >"$scratch/server.out"
    # Whatever it reads has to stay open.
    "$@" < <(sleep 3600) >"$scratch/server.out" 2>"$scratch/server.err" &
    server=$!
    address=
    for _ in $(seq 100); do
        address=$(sed -n 's|^listening on \(wss\?://127\.0\.0\.1:[0-9]*\)/\?$|\1|p' "$scratch/server.out")
        [ -n "$address" ] && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$address" ] || { cat "$scratch/server.err" >&2; die "the echo example did not say where it listens"; }
}

# One client after the other; each ends with its own `N passed, M failed`.
passed=0
failed=0
run_client() {
    local name=$1 status=0 summary
    shift
    echo "== $name"
    timeout 300 "$@" "$address" >"$scratch/client.out" 2>&1 || status=$?
    cat "$scratch/client.out"
    summary=$(tail -n 1 "$scratch/client.out")
    if [[ $summary =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        if [ "${BASH_REMATCH[1]}" = 0 ] && [ "${BASH_REMATCH[2]}" = 0 ]; then
            echo "FAIL  $name: ran nothing"
            failed=$((failed + 1))
        fi
        if [ "$status" != 0 ] && [ "${BASH_REMATCH[2]}" = 0 ]; then
            echo "FAIL  $name: exit status $status"
            failed=$((failed + 1))
        fi
    else
        echo "FAIL  $name: ended with status $status and no summary"
        failed=$((failed + 1))
    fi
    if ! kill -0 "$server" 2>/dev/null; then
        echo "FAIL  $name: the server died"
        cat "$scratch/server.err"
        failed=$((failed + 1))
    fi
}

run_clients() {
    run_client "npm ws$1" node ws_client.js
    run_client "Python websockets$1" venv/bin/python websockets_client.py
    run_client "Chromium$1" node browser.js
}

start_server
run_clients ""
kill "$server"
wait "$server" 2>/dev/null || true

# The same, and more, with what the clients offer accepted.
start_server --deflate
export ECHO_DEFLATE=1
run_clients ", compressed"

# And over TLS, with a certificate that signs itself: node and Python are told to believe it, Chromium to believe everybody.
if [ -n "$wss_echo_binary" ]; then
    kill "$server"
    wait "$server" 2>/dev/null || true
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>"$scratch/openssl.err" ||
        { cat "$scratch/openssl.err" >&2; die "openssl makes no certificate"; }
    await_server "$wss_echo_binary" "$scratch/cert.pem" "$scratch/key.pem" 127.0.0.1:0 --deflate
    export NODE_EXTRA_CA_CERTS=$scratch/cert.pem SSL_CERT_FILE=$scratch/cert.pem
    run_clients ", over TLS"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
