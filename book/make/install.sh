#!/bin/sh
# Makes the environment: called by every make, from the root of the repository, with PYTHON, VENV and TORCH_INDEX set.
# What there is stays as it is until a new one is whole: that is built beside it, in a folder of its own ($VENV.<hash>),
# and then $VENV, a link, is turned to it. The hash is that of what decides the environment: requirements, lock,
# interpreter and place.
set -eu

stop() {
    echo "install: $1" >&2
    exit 1
}

# The interpreter that is asked for, else that of the environment that there is.
asked=${PYTHON:-python3}
[ -z "${PYTHON:-}" ] && [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c '' 2> /dev/null && asked=$VENV/bin/python

command -v "$asked" > /dev/null 2>&1 \
    || stop "there is no $asked here; name a Python of 3.11 or newer, as in: make book PYTHON=python3.12"
version=$("$asked" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || stop "$asked does not run"
"$asked" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || stop "$asked is Python $version, which is too old; name one of 3.11 or newer, as in: make book PYTHON=python3.12"
"$asked" -c 'import ensurepip, venv' 2> /dev/null \
    || stop "$asked lacks its venv module; on Debian and Ubuntu: apt install python$version-venv"

exec "$asked" book/make/install.py "$VENV" "$(pwd -P)"
