#!/usr/bin/env bash
# The Redis store and several nodes on one Redis: the shared store suite, then the official client against two nodes of
# socketio_lab: roaming, killed nodes, faults of Redis.
#
#   socketio/tests/official/cluster.sh [--full]
#
# --full: 200 runs with roaming clients and 50 killed nodes instead of a sample. What is missing is installed (npm, Debian);
# what cannot be had is a failure. The last line is `N passed, M failed`.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../../.." && pwd)
foreign=$here
. "$repository/tests/foreign/install.sh"

[ "${1:-}" = --full ] && export RUNS=200 KILLS=50
install_node_clients
install_redis
cd "$repository"
export ADJOURN_REQUIRE_REDIS=1
cargo test -p adjourn-socketio --locked --features redis --test store -- redis shared || die "the store suite fails"
cargo build -p adjourn-socketio --locked --features redis --example socketio_lab || die "the lab does not build"
export LAB=${CARGO_TARGET_DIR:-$repository/target}/debug/examples/socketio_lab
cd "$here"
WIDTH=${WIDTH:-4} exec node cluster.js
