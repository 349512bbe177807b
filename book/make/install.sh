#!/bin/sh
# Makes the environment: called by make, from the root of the repository, with PYTHON, VENV and TORCH_INDEX set.
# $VENV/installed is written last, so that an installation which was cut short is begun anew.
set -eu

stop() {
    echo "install: $1" >&2
    exit 1
}

command -v "$PYTHON" > /dev/null 2>&1 \
    || stop "there is no $PYTHON here; name a Python of 3.11 or newer, as in: make book PYTHON=python3.12"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || stop "$PYTHON does not run"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || stop "$PYTHON is Python $version, which is too old; name one of 3.11 or newer, as in: make book PYTHON=python3.12"
"$PYTHON" -c 'import ensurepip, venv' 2> /dev/null \
    || stop "$PYTHON lacks its venv module; on Debian and Ubuntu: apt install python$version-venv"

if [ -e "$VENV/installed" ]; then
    echo "install: the pinned versions changed; bringing $VENV up to date"
    rm "$VENV/installed"
else
    echo "install: making $VENV with Python $version; this takes a few minutes and, with a GPU build of torch, about 7 GB"
    "$PYTHON" -m venv --clear "$VENV" || stop "could not make $VENV"
fi

log="$VENV/install.log"
if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --constraint requirements-lock.txt --editable '.[dev]' \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} 2> "$log"; then
    if grep -qE 'ConnectionError|NameResolutionError|ConnectTimeout|Connection broken|from versions: none' "$log"; then
        stop "the package index cannot be reached; the first installation needs the network (details: $log)"
    fi
    stop "pip failed: $(grep -E '^ *(ERROR|error)' "$log" | tail -n 1) (details: $log)"
fi
touch "$VENV/installed"
