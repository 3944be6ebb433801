# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Installing what a script needs on Debian or Ubuntu, and nothing else. Sourced by scripts/test and
# scripts/quickstart; needs bash.
#
#   packages_need ENTRY...   installs those that are absent; returns 1, having said what to do, when
#                            that is impossible. Nothing absent: touches nothing, needs no rights.
#   packages_want ENTRY...   the same for what the caller can do without: says what could not be had.
#   packages_report          one line naming the packages that packages_need has installed, if any.
#
# An ENTRY is a Debian package, or COMMAND=PACKAGE or /GLOB*=PACKAGE: the package is then wanted
# only where the command, or a file of that pattern, is not there (somebody may have it from
# elsewhere, php-fpm may be any version).
#
# What is there is never upgraded on purpose. Services do not start while they are installed: a
# temporary /usr/sbin/policy-rc.d says no, unless there is one already, which is then obeyed and
# left alone.

# What building takes. gcc only recommends libc6-dev, and recommendations are not installed.
# shellcheck disable=SC2034  # used by the scripts that source this file
PACKAGES_BUILD=(
    cc=gcc
    libc6-dev
    make=make
    autoreconf=autoconf
    automake=automake
    pkg-config=pkg-config
    libfcgi-dev
    libevent-dev
    libcurl4-openssl-dev
    libcjson-dev
    libinih-dev
    libseccomp-dev
    libssl-dev
    zlib1g-dev
    libcmocka-dev
)

# The servers between which the sidecar stands.
# shellcheck disable=SC2034
PACKAGES_SERVERS=(
    nginx=nginx
    '/usr/sbin/php-fpm*=php-fpm'
)

# The other web servers that the tests put in front. Apache's modules come with its binary.
# shellcheck disable=SC2034
PACKAGES_FRONTS=(
    lighttpd=lighttpd
    apache2=apache2-bin
    caddy=caddy
    haproxy=haproxy
)

# What building the Debian package takes besides.
# shellcheck disable=SC2034
PACKAGES_DEB=(
    dpkg-buildpackage=dpkg-dev
    dh=debhelper
    build-essential
)

PACKAGES_ADDED=()

# What packages_apt returns when there is no network.
PACKAGES_NO_LIST=99
# How long a download may take.
packages_download_s=1800

packages_is_there() {
    local entry=$1 want=${1%%=*}
    # Servers live in sbin, which is not on the PATH of every user.
    local PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    case $entry in
    /*=*) compgen -G "$want" >/dev/null ;;
    *=*) command -v "$want" >/dev/null 2>&1 ;;
    *) [ "$(dpkg-query -W -f='${db:Status-Status}' "$entry" 2>/dev/null)" = installed ] ;;
    esac
}

packages_missing() {
    local entry
    for entry in "$@"; do
        packages_is_there "$entry" || printf '%s\n' "${entry##*=}"
    done
}

packages_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# The subshell's EXIT trap removes policy-rc.d however apt ends. The file names itself, so that one
# left by a kill -9 is known as ours the next time.
packages_apt() (
    policy=/usr/sbin/policy-rc.d
    mark='velox-sidecar scripts: services do not start during this installation'
    placed=no
    trap '[ "$placed" = no ] || packages_as_root rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [ ! -e "$policy" ] || grep -qsF "$mark" "$policy"; then
        placed=yes
        packages_as_root sh -c "printf '#!/bin/sh\n# %s\nexit 101\n' \"\$2\" >\"\$1\" &&
            chmod 755 \"\$1\"" sh "$policy" "$mark"
    fi
    options=(-y -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    # needrestart (Ubuntu) would restart services of the machine.
    environment=(DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C)
    options+=(--no-upgrade --no-install-recommends)
    packages_as_root env "${environment[@]}" apt-get "${options[@]}" update ||
        exit "$PACKAGES_NO_LIST"
    packages_as_root env "${environment[@]}" timeout --foreground "$packages_download_s" \
        apt-get "${options[@]}" install --download-only "$@" &&
        packages_as_root env "${environment[@]}" apt-get "${options[@]}" install "$@"
) </dev/null

packages_may_install() {
    command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}

packages_need() {
    local missing=() log
    mapfile -t missing < <(packages_missing "$@" | sort -u)
    [ "${#missing[@]}" -gt 0 ] || return 0

    if ! command -v apt-get >/dev/null 2>&1; then
        echo "missing: ${missing[*]} (names of Debian); install what matches on this system" >&2
        return 1
    fi
    if ! packages_may_install && ! { [ -t 0 ] && sudo -v; }; then
        echo "missing: ${missing[*]}" >&2
        echo "run as root or with sudo:  apt-get install --no-install-recommends ${missing[*]}" >&2
        return 1
    fi
    echo "installing: ${missing[*]}"
    log=$(mktemp) || return 1
    if ! packages_apt "${missing[@]}" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        echo "apt-get could not install: ${missing[*]}" >&2
        return 1
    fi
    rm -f "$log"
    PACKAGES_ADDED+=("${missing[@]}")
}

# One that a distribution does not have must not take the others with it.
packages_want() {
    local missing=() absent=() package packages_download_s=240
    mapfile -t missing < <(packages_missing "$@" | sort -u)
    [ "${#missing[@]}" -gt 0 ] || return 0

    if ! packages_may_install; then
        absent=("${missing[@]}")
    else
        echo "installing: ${missing[*]}"
        packages_apt "${missing[@]}" >/dev/null 2>&1
        case $? in
        0) PACKAGES_ADDED+=("${missing[@]}") ;;
        "$PACKAGES_NO_LIST") absent=("${missing[@]}") ;;
        *)
            for package in "${missing[@]}"; do
                if packages_apt "$package" >/dev/null 2>&1; then
                    PACKAGES_ADDED+=("$package")
                else
                    absent+=("$package")
                fi
            done
            ;;
        esac
    fi
    [ "${#absent[@]}" -eq 0 ] ||
        echo "not installed, so that what needs them is skipped: ${absent[*]}"
}

packages_report() {
    [ "${#PACKAGES_ADDED[@]}" -gt 0 ] || return 0
    echo "packages installed, which stay: ${PACKAGES_ADDED[*]}"
}
