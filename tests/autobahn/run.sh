#!/usr/bin/env bash
# Runs the Autobahn test suite over autobahn_server and autobahn_client and judges its reports.
# See --help. Needs Python 3 (with venv), a Python 2.7 interpreter and, the first time, PyPI.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-target}
[[ $target = /* ]] || target=$root/$target
env=${AUTOBAHN_ENV:-$target/autobahn-env}
[[ $env = /* ]] || env=$PWD/$env

usage() {
    cat <<'USAGE'
usage: tests/autobahn/run.sh [options]

  --full          all 517 cases (default: groups 1 to 10, without 12 and 13, permessage-deflate)
  --cases PATTERN only these cases, from all groups: '9.*', 6.4 or 7.1.6; may be repeated
  --role ROLE     server, client or both (default)
  --server BIN    the server under test, run as `BIN 127.0.0.1:PORT`; it prints
                  `listening on ws://127.0.0.1:PORT` and echoes (default: example autobahn_server)
  --client BIN    the client under test, run as `BIN ws://127.0.0.1:PORT`; it runs all cases of a
                  fuzzing server and exits 0 (default: example autobahn_client)
  --tls           TLS between the suite and ours, by over_tls.py; the binaries need the feature `tls`
  --out DIR       where summary.md, logs and the suite's reports go (default: target/autobahn)
  --table FILE    with --full and both roles: writes the table of verdicts into a page, between two
                  comments that are there already; see docs/autobahn.md
  --timeout SECS  bound on each role's run (default: 300, with --full 1800)

The suite's environment is made on first use in target/autobahn-env or $AUTOBAHN_ENV. Its Python 2.7
is $AUTOBAHN_PYTHON2 if set, else pyenv's 2.7.18, else python2.7 or python2.
The last line of output is `N passed, M failed`.
Exit code: 0 all passed, 1 a failure, 2 no run (usage, environment or build).
USAGE
}

die() {
    echo "autobahn: $*" >&2
    exit 2
}

find_python2() {
    local candidate
    for candidate in \
        "${AUTOBAHN_PYTHON2:-}" \
        "$(pyenv prefix 2.7.18 2>/dev/null || true)/bin/python2.7" \
        "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions/2.7.18/bin/python2.7" \
        "$(command -v python2.7 || true)" \
        "$(command -v python2 || true)"; do
        # Run it: a shim may be there without an interpreter behind it.
        if [[ -x $candidate ]] &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' </dev/null >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

build_environment() {
    local python2
    python2=$(find_python2) || {
        echo "no Python 2.7 found: install pyenv's 2.7.18 or Debian's python2, or set AUTOBAHN_PYTHON2"
        return 1
    }
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 VIRTUALENV_OVERRIDE_APP_DATA=$env/app-data
    # Only what this script makes is removed: $AUTOBAHN_ENV may be any directory.
    rm -rf "$env/stamp" "$env/virtualenv" "$env/suite" "$env/app-data" &&
        python3 -m venv "$env/virtualenv" &&
        "$env/virtualenv/bin/python" -m pip install --progress-bar off virtualenv==20.21.1 &&
        "$env/virtualenv/bin/python" -m virtualenv --no-download --no-periodic-update \
            -p "$python2" "$env/suite" &&
        "$env/suite/bin/python" -m pip install --progress-bar off --no-deps \
            -r "$here/build-requirements.txt" &&
        "$env/suite/bin/python" -m pip install --progress-bar off --no-deps --no-build-isolation \
            -r "$here/requirements.txt" &&
        "$env/suite/bin/python" -m pip check &&
        "$env/suite/bin/python" "$here/suite.py" list >/dev/null &&
        echo "$stamp" >"$env/stamp"
}

# Built once per set of pins; a second run of this script beside it waits.
environment() (
    { mkdir -p "$env" && exec 9>"$env/lock"; } || die "cannot write to $env"
    flock -w 1200 9 || die "another run holds the lock of the environment"
    stamp=$(cat "$here/build-requirements.txt" "$here/requirements.txt" | sha256sum | cut -d' ' -f1)
    if [[ -f $env/stamp && $(<"$env/stamp") = "$stamp" ]] &&
        "$env/suite/bin/python" -c 'import autobahntestsuite' >/dev/null 2>&1; then
        exit 0
    fi
    echo "making the suite's environment (once, about a minute) ..."
    export -f build_environment find_python2
    export here env stamp
    if ! timeout 1200 bash -c build_environment >"$env/build.log" 2>&1 </dev/null; then
        tail -n 30 "$env/build.log" >&2
        die "the suite's environment could not be made, see $env/build.log"
    fi
)

example() { # NAME: builds it, sets $built
    echo "building example $1 ..."
    (cd "$root" && timeout 1800 cargo build --quiet --release --features tls --example "$1" </dev/null) ||
        die "example $1 does not build"
    built=$target/release/examples/$1
}

role=both server='' client='' table='' out=$target/autobahn
options=()
while (($#)); do
    case $1 in
    --full | --tls) options+=("$1") && shift && continue ;;
    -h | --help) usage && exit 0 ;;
    --role | --server | --client | --out | --table | --cases | --timeout) ;;
    *) usage >&2 && die "unknown option $1" ;;
    esac
    (($# > 1)) && [[ -n $2 ]] || die "$1 needs a value"
    case $1 in
    --role) role=$2 ;;
    --server) server=$2 ;;
    --client) client=$2 ;;
    --out) out=$2 ;;
    --table) table=$2 && options+=("$1" "$2") ;;
    *) options+=("$1" "$2") ;;
    esac
    shift 2
done
[[ $role = server || $role = client || $role = both ]] || die "--role is server, client or both"
[[ -z $table || $role = both ]] || die "--table is about both roles"
command -v python3 >/dev/null || die "python3 is needed"

# Nothing is built for a selection that is none.
python3 "$here/drive.py" --check "${options[@]}" || exit 2
environment || exit 2
if [[ $role != client ]]; then
    [[ -n $server ]] || { example autobahn_server && server=$built; }
    options+=(--server "$server")
fi
if [[ $role != server ]]; then
    [[ -n $client ]] || { example autobahn_client && client=$built; }
    options+=(--client "$client")
fi
exec python3 "$here/drive.py" --python2 "$env/suite/bin/python" --out "$out" "${options[@]}" </dev/null
