#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes configure and Makefile.in from configure.ac and Makefile.am. Needed once after a git
# clone, never in a release tarball.
set -eu
cd "$(dirname "$0")"

missing=
for tool in autoreconf automake aclocal pkg-config; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -n "$missing" ]; then
    echo "autogen.sh: missing:$missing" >&2
    echo "  Debian, Ubuntu: apt-get install autoconf automake pkg-config" >&2
    echo "  Fedora:         dnf install autoconf automake pkgconf-pkg-config" >&2
    exit 1
fi

mkdir -p build-aux
exec autoreconf --force --install --warnings=all,no-obsolete
