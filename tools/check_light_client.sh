#!/bin/sh
# Install the wheel as a student would, into an environment of its own, without a compiler, and see the command run.
#
#   tools/check_light_client.sh PYTHON    PYTHON has pip and the build backend (that of .venv/)
set -eu

cd "$(dirname "$0")/.."
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$work" .
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
    --require-hashes -r requirements/client.txt
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-index \
    "$work"/nightshift-*.whl
"$work/venv/bin/python" -m pip check

# Away from the checkout, so that only what was installed can be imported.
cd "$work"
./venv/bin/nightshift --version
./venv/bin/nightshift --help >/dev/null

# What needs more than the light client says so in one line.
status=0
./venv/bin/nightshift simulate 2>said || status=$?
if [ "$status" != 3 ] || [ "$(wc -l <said)" != 1 ] || ! grep -q "pip install 'nightshift\[server\]'" said; then
    echo "without the server parts, simulate ended with $status and said:" >&2
    cat said >&2
    exit 1
fi
echo "the light client installs from wheels alone and runs"
