# What the stages share. A stage sources this first and ends with `finish`.
# It works on a copy of the project in a scratch folder: nothing is written in the checkout.
# shellcheck shell=bash disable=SC2034
set -u
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
STAGES=$PWD/.ci
OLDEST=8 # of Python 3: the README promises 3.8 and newer
SIDES="client server"
LIMIT=300 # seconds that one run of the tests may take
cache=${XDG_CACHE_HOME:-$HOME/.cache}/jim-gate # downloads, kept for the next run
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
export PYTHONDONTWRITEBYTECODE=1
passed=0
failed=0
skipped=0

# check WHAT COMMAND...: run the command; if it failed, show what it printed, but for the tests that did not fail
check() {
    local what=$1
    shift
    if "$@" >"$scratch/output" 2>&1; then
        passed=$((passed + 1))
        echo "passed: $what$(tests)"
    else
        failed=$((failed + 1))
        echo "FAILED: $what"
        sed -E '/ \.\.\. (ok|skipped .*)$/d; s/^/    /' "$scratch/output"
    fi
}

# skip WHAT REASON: this machine cannot check it
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1 ($2)"
}

# finish: the last line of every stage
finish() {
    local line="$passed passed, $failed failed"
    [ "$skipped" = 0 ] || line="$line, $skipped skipped"
    echo "$line"
    [ "$failed" = 0 ]
    exit
}

# tests: what unittest said about the tests that have just run, if any did: ": 329 tests (skipped=3)"
tests() { tr -d '\r' <"$scratch/output" | sed -nE 's/^Ran ([0-9]+ tests?) in .*/: \1/p; s/^OK( \(.*\))$/\1/p' | tr -d '\n'; }

# skips: the names of the skipped tests with their reasons, from what `unittest -v` printed last
skips() { tr -d '\r' <"$scratch/output" | grep -E " \.\.\. skipped " | sed 's/^/    /'; }

# need COMMAND PACKAGE...: is the command here? If not, install Debian's packages, if we may
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return
    echo "installing $*"
    {
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
    } >"$scratch/apt" 2>&1 || tail -n 5 "$scratch/apt"
    command -v "$command" >/dev/null
}

# project FOLDER: copy there what a clone would hold, with the changes that are not committed yet
project() {
    mkdir -p "$1" || return 1
    git ls-files -z --cached --others --exclude-standard |
        tar --create --null --files-from=- --ignore-failed-read 2>/dev/null |
        tar --extract --directory="$1"
    [ -f "$1/client.py" ]
}

# pythons: the interpreters to test with, one a line, the newest last; without pyenv the one that is there
pythons() {
    local version
    if ! command -v pyenv >/dev/null; then
        command -v python3
        return
    fi
    for version in $(pyenv versions --bare); do
        case $version in
        3.*[!0-9.]*) ;; # a release candidate, a virtual environment
        3.*.*)
            [ "$(echo "$version" | cut -d. -f2)" -ge "$OLDEST" ] && echo "$(pyenv root)/versions/$version/bin/python"
            ;;
        esac
    done | sort --version-sort
}

# version PYTHON: its version, as 3.13.0
version() { "$1" -c 'import platform; print(platform.python_version())'; }

# limited COMMAND...: end it if something hangs
limited() {
    local status=0
    timeout --kill-after=10 "$LIMIT" "$@" || status=$?
    [ "$status" != 124 ] || echo "ended: it took longer than $LIMIT s"
    return "$status"
}

# files: all that is in this folder, with a checksum
files() { find . -type f -print0 | sort --zero-terminated | xargs --null cksum; }

# clean COMMAND...: run it in this folder, where it must not change a file or leave one behind
clean() {
    files >"$scratch/before"
    "$@" || return 1
    files >"$scratch/after"
    diff "$scratch/before" "$scratch/after"
}

# whole PYTHON [OPTION]: the README's own test command
whole() {
    local python=$1
    shift
    clean limited "$python" -X dev -W error -m unittest "$@"
}

# alone PYTHON SIDE: one side's three files, copied to an empty folder, tested as a script from another folder
alone() {
    rm -rf "$scratch/alone" && mkdir "$scratch/alone" || return 1
    cp "$2.py" "$2_log_config.py" "test_$2.py" "$scratch/alone" || return 1
    (cd / && limited "$1" -X dev -W error "$scratch/alone/test_$2.py") || return 1
    [ "$(find "$scratch/alone" -mindepth 1 | wc -l)" = 3 ]
}

newest=$(pythons | tail -n 1) # runs the developers' tools
project "$scratch/project" && cd "$scratch/project" || { echo "FAILED: to copy the project" && exit 1; }
