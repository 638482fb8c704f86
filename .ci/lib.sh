# What the stages share. Each stage sources this file first; it then works in a copy of the project: nothing is
# written in the checkout. A check prints a line that begins with "passed: ", "FAILED: " or "skipped: ".
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
ci=$PWD/.ci
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
cache=${XDG_CACHE_HOME:-${HOME:-$scratch}/.cache}/jim-gate # downloads, kept for the next run
mkdir -p "$cache" 2>/dev/null || cache=$scratch
export PYTHONDONTWRITEBYTECODE=1 TMPDIR=$scratch/tmp
limited="timeout --kill-after=10 240" # seconds, in case something hangs

# check WHAT COMMAND...: run the command; show what it printed if it fails, or if it is unittest and finds no test
check() {
    if "${@:2}" >"$scratch/output" 2>&1 && ! grep -q "^Ran 0 tests" "$scratch/output"; then
        echo "passed: $1$(sed -nE 's/^Ran ([0-9]+ tests?) .*/ (\1)/p; s/^OK( .*)/\1/p' "$scratch/output" | tr -d "\n")"
    else
        echo "FAILED: $1"
        tail -n 60 "$scratch/output" | sed "s/^/    /"
    fi
}

# skip WHAT WHY: this computer cannot check it
skip() { echo "skipped: $1 ($2)"; }

# try COMMAND...: run it without output; if it fails, $why is the last line that it printed
try() { "$@" >"$scratch/log" 2>&1 || { why=$(grep -v "^ *$" "$scratch/log" | tail -n 1) && return 1; }; }

# need PACKAGES COMMAND...: does the command work? If not, install Debian's packages, if that is allowed
need() {
    "${@:2}" && return
    if command -v apt-get && [ "$(id -u)" = 0 ]; then
        timeout 300 apt-get update
        DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install --yes --no-install-recommends $1
    fi
    "${@:2}" || { echo "not here, and cannot be installed: $1" && return 1; }
}

# tools PACKAGE...: install Python packages into a virtual environment; their commands are in $bin
bin=$scratch/venv/bin
tools() {
    need python3-venv "$newest" -c "import ensurepip, venv" && "$newest" -m venv "$scratch/venv" &&
        "$bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# own_network COMMAND...: run it in a network of its own, which the rest of the computer does not see
own_network() {
    local options="--net --map-root-user"
    [ "$(id -u)" != 0 ] || options=--net
    unshare $options bash -c 'ip link set lo up && exec "$@"' bash "$@"
}

# pythons: each CPython from 3.8 on, one a line, the newest last
pythons() {
    local is_right='from platform import *; import sys
if sys.version_info >= (3, 8) and sys.version_info[3] == "final" and python_implementation() == "CPython":
    print(python_version(), sys.executable)'
    for python in "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin/python3 \
        $(compgen -c python3 | grep -E '^python3(\.[0-9]+)?$'); do
        "$python" -c "$is_right" 2>/dev/null
    done | sort --version-sort --unique --key=1,1 | cut -d " " -f 2-
}

# tests PYTHON...: run all tests with the README's own command, which must change no file and leave none behind
files() { find . "$TMPDIR" \( -type f -exec cksum {} + \) -o -print | sort; }
tests() { files >"$scratch/files" && "$@" -X dev -W error -m unittest && files | diff "$scratch/files" -; }

newest=$(pythons | tail -n 1) # runs the developers' tools
[ -n "$newest" ] || { echo "FAILED: there is no CPython from 3.8 on" && exit 1; }
mkdir "$TMPDIR" "$scratch/project" && git ls-files -z --cached --others --exclude-standard |
    tar --create --null --files-from=- --ignore-failed-read 2>/dev/null | tar --extract --directory="$scratch/project"
cd "$scratch/project" && [ -f client.py ] || { echo "FAILED: to copy the project" && exit 1; }
