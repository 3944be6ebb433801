# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Copying the sources, for scripts that build: the checkout may be read-only, somebody else's, or
# configured for another build. Sourced; needs bash.
#
#   sources_list TOP               the files that make up the sources, each ended by a NUL, sorted
#   sources_copy TOP LIST FOLDER   copies those named in the file LIST to FOLDER, which it makes

sources_list() {
    if git -C "$1" rev-parse --git-dir >/dev/null 2>&1; then
        git -C "$1" ls-files --cached --others --exclude-standard -z |
            (cd "$1" && while IFS= read -r -d '' file; do
                if [ -e "$file" ]; then
                    printf '%s\0' "$file"
                fi
            done)
    else
        (cd "$1" && find . -name .git -prune -o -name autom4te.cache -prune -o \
            -name 'build*' -path './build*' ! -path './build-aux*' -prune -o \
            -name __pycache__ -prune -o -type f ! -name config.status ! -name config.log \
            ! -path ./Makefile ! -name '*.o' ! -name '*.a' ! -name '*.trs' -print0)
    fi | sort -z
}

sources_copy() {
    mkdir -p "$3" || return 1
    (cd "$1" && tar --null -T "$2" -cf -) | tar -xf - -C "$3"
}
