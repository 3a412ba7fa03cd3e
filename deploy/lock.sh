#!/bin/sh
# pyproject.toml in, deploy/requirements.txt (what serves) and deploy/build-requirements.txt (what builds the wheel, and
# lists what is in the image) out.
# Versions that are locked and still fit stay; `deploy/lock.sh --upgrade` takes the newest ones. Needs uv.
set -eu
cd "$(dirname "$0")/.."

lock() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --custom-compile-command deploy/lock.sh "$@"
}

lock "$@" pyproject.toml --output-file deploy/requirements.txt
python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], "cyclonedx-python-lib>=11,<12", sep="\n")' |
    lock "$@" - --output-file deploy/build-requirements.txt
