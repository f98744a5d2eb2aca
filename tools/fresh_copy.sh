#!/usr/bin/env bash
# Copy this checkout as a clone would have it (tracked files and new ones that are not ignored) into a new directory, and make
# that a git repository, so that tests which ask git for the list of files see what a clone sees.
#
#   tools/fresh_copy.sh DIRECTORY
set -euo pipefail

target=$1
root=$(cd "$(dirname "$0")/.." && pwd -P)
if [ -e "$target" ]; then
    echo "$target exists already; name a new directory" >&2
    exit 2
fi
mkdir -p "$target"
target=$(cd "$target" && pwd -P)

# The checkout may belong to somebody else (CI as root): naming it safe for this one command is enough.
cd "$root"
git -c safe.directory="$root" ls-files -z --cached --others --exclude-standard --deduplicate |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] && [ ! -L "$file" ] || printf '%s\0' "$file"; done |
    tar --create --no-recursion --null --files-from - | tar --extract --directory "$target"
git -C "$target" init --quiet
git -C "$target" -c safe.directory="$target" add --all
