#!/bin/sh
# Compile the calendar beside its source, if there is a C compiler and the source has changed. Without one the planner
# uses the same calendar in Python, ten times slower.
set -eu

cd "$(dirname "$0")/../scheduler/core/calendar"
compiler=${CC:-cc}
if ! command -v "$compiler" >/dev/null 2>&1; then
    exit 0
fi
stamp="$(cksum calendar.c) $("$compiler" -dumpmachine)"
if [ -f _calendar.so ] && [ -f _calendar.stamp ] && [ "$(cat _calendar.stamp)" = "$stamp" ]; then
    exit 0
fi
# Into a file of its own first: whoever has the old one open goes on with that one.
if "$compiler" -O2 -std=c99 -Wall -Wextra -shared -fPIC -o "_calendar.$$" calendar.c; then
    mv "_calendar.$$" _calendar.so
    printf '%s\n' "$stamp" >_calendar.stamp
else
    rm -f "_calendar.$$" _calendar.so
    echo "the calendar could not be compiled; the one in Python is used, which is ten times slower" >&2
fi
