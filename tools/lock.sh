#!/bin/sh
# Write requirements/*.txt from pyproject.toml: exact versions with hashes, for every platform and Python that we support.
# Pins that still fit are kept; UPGRADE=1 takes the newest of everything.
#
#   tools/lock.sh UV
set -eu

cd "$(dirname "$0")/.."
uv=$1
mkdir -p requirements

compile() {
    out=$1
    shift
    # No address of an index and no path may be written; --no-build keeps to packages that have wheels.
    "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-build \
        --no-annotate --custom-compile-command "make lock" ${UPGRADE:+--upgrade} \
        "$@" --output-file "$out"
}

# dev holds everything; the others are held to its versions, so one version of a package is tested and shipped.
compile requirements/dev.txt --extra dev pyproject.toml
UPGRADE=
compile requirements/server.txt --extra server --constraint requirements/dev.txt pyproject.toml
compile requirements/client.txt --constraint requirements/dev.txt pyproject.toml
# What hosts need besides: the binding to libvirt is built where it is installed, against whatever libvirt is there.
printf 'libvirt-python>=9\npycdlib>=1.14\n' | "$uv" pip compile --quiet --no-config --universal --python-version 3.11 \
    --constraint requirements/dev.txt --generate-hashes --no-annotate --custom-compile-command "make lock" ${UPGRADE:+--upgrade} - --output-file requirements/host.txt
# What the wheel is built with where no .venv/ is, as in the container image.
"$(dirname "$uv")/python" -c "
import pathlib, tomllib
print(*tomllib.loads(pathlib.Path('pyproject.toml').read_text())['build-system']['requires'], sep='\n')
" | compile requirements/build.txt --constraint requirements/dev.txt -
