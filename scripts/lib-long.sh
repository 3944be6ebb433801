# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154
#
# The long part of scripts/test, which sources this file and whose variables ($top, $source, $build, $run,
# $jobs) it uses. It builds five more times: for gcc's analyzer, with two sets of sanitizers, for
# fuzzing, and in distcheck.

long_c_files() {
    find "$source/fcgi" "$source/sidecar" "$source/tests" -name '*.[ch]' | sort
}

long_style() {
    long_c_files | xargs clang-format --dry-run -Werror --style=file
}

long_shell_scripts() {
    find "$source/scripts" "$source/.ci" "$source/autogen.sh" -type f | sort |
        while read -r file; do
            case $file in
            *.sh) echo "$file" ;;
            *) head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh\b' && echo "$file" ;;
            esac
        done
}

# SC2317 takes functions that are called by name (step NAME FUNCTION) for unreachable.
long_shellcheck() {
    cd "$source" && long_shell_scripts | xargs shellcheck -x -S style -e SC2317
}

long_architecture() {
    "$source/scripts/check-architecture" --build "$build/plain"
}

# gcc's analyzer needs optimisation to see through calls; warnings are errors here as everywhere.
# Off: null pointers, since it forgets a look-up that it has seen succeed, and leaks, since it does
# not follow a pointer that is stored through void *; the sanitizers watch for both.
# (clang's was tried: it takes a shifted list for freed memory, and found nothing else.)
long_analyzer() {
    local off='-Wno-analyzer-null-dereference -Wno-analyzer-null-argument -Wno-analyzer-malloc-leak'
    configure_in "$build/analyzer" --disable-tests CFLAGS="-g -O1 -fanalyzer $off" &&
        make -j"$jobs" all
}

# Unit tests that start threads: ThreadSanitizer has nothing to see in the others.
long_threaded_tests() {
    (cd "$source" && grep -l pthread_create tests/unit/*.c | sed 's/\.c$//')
}

# long_build_sanitized FOLDER SANITIZERS TARGET...
# -O1 keeps stack traces whole and is fast enough.
long_build_sanitized() {
    local folder=$1 sanitizers=$2
    shift 2
    configure_in "$build/$folder" --enable-sanitizers="$sanitizers" CC=clang CFLAGS='-g -O1' &&
        make -j"$jobs" all && make -j"$jobs" "$@"
}

long_build_asan() {
    long_build_sanitized asan address,undefined check TESTS=
}

# shellcheck disable=SC2046
long_build_tsan() {
    long_build_sanitized tsan thread check-tools $(long_threaded_tests)
}

# A child that a sanitizer ends is started again by its parent and a test may not notice: reports go
# to files, in a folder that the unprivileged child may write to, and a file is a failure.
# long_sanitizers NAME FOLDER [TESTS]
long_sanitizers() {
    local name=$1 folder=$2 tests=${3:-} reports=$run/$2
    mkdir -p "$reports" && chmod 1777 "$reports"
    local common=log_path=$reports/report
    export ASAN_OPTIONS=$common:detect_leaks=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=$common:print_stacktrace=1
    export TSAN_OPTIONS=$common:second_deadlock_stack=1
    export VELOX_TEST_SLOW=4
    run_check "$name: make check" "$build/$folder" ${tests:+"$tests"}
    run_pytest "$name: daemon" daemon "$build/$folder"
    unset ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS VELOX_TEST_SLOW
    step "$name: reports" long_no_reports "$reports"
}

# Tests kill a child by SIGSEGV to see it started again. Such a report ends in epoll_wait, which has
# no way to crash by itself. That LeakSanitizer cannot look into a thread that is just ending is a
# remark of its own (sanitizer_stoptheworld_linux_libcdep.cpp), not a report.
long_no_reports() {
    local report result=0
    for report in "$1"/*; do
        [ -s "$report" ] || continue
        grep -qvE '^==[0-9]+==Unable to get registers from thread [0-9]+\.$' "$report" || continue
        grep -qE '^SUMMARY: .*: SEGV .* in (__interceptor_)?epoll_wait' "$report" && continue
        head -n 60 "$report"
        result=1
    done
    return $result
}

# What starts a process for each case, or many at once, is left to the sanitizers: it would take as long
# again, and most of that in the C library's start. The rest runs in two halves beside each other.
long_valgrind_left="process doctor policy reload upgrade systemd large_bodies builds_many"

# long_valgrind_tests HALF: 0 or 1.
long_valgrind_tests() {
    local file name number=0
    for file in "$source"/tests/daemon/test_*.py; do
        name=$(basename "$file" .py)
        case " $long_valgrind_left " in
        *" ${name#test_} "*) ;;
        *)
            number=$((number + 1))
            [ $((number % 2)) -ne "$1" ] || continue
            ;;
        esac
        pytest_options+=("--ignore=$file")
    done
    mkdir -p "$run/valgrind" && chmod 1777 "$run/valgrind"
    export VELOX_SIDECAR_WRAPPER="valgrind --quiet --vgdb=no --trace-children=yes --track-fds=no \
--leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
--error-exitcode=99 --log-file=$run/valgrind/%p.log"
    export VELOX_TEST_SLOW=10
    limit_s=780 run_pytest "valgrind: daemon, half $1" daemon "$build/plain"
    unset VELOX_SIDECAR_WRAPPER VELOX_TEST_SLOW
    pytest_options=()
    step "valgrind: reports of half $1" long_valgrind_reports
}

# A log without an error still holds remarks, on a system call that this valgrind does not know, or
# on an overlap in a fortified memmove, which it takes for memcpy; AddressSanitizer knows better.
long_valgrind_reports() {
    local log result=0
    local errors='Invalid|ninitialised|definitely lost|indirectly lost|terminating'
    for log in "$run"/valgrind/*.log; do
        if [ ! -e "$log" ]; then
            echo "valgrind has written no log: were the tests run under it?"
            return 1
        fi
        grep -qE "^==[0-9]+== .*($errors)" "$log" || continue
        head -n 60 "$log"
        result=1
    done
    return $result
}

long_build_fuzz() {
    configure_in "$build/fuzz" --enable-fuzzing CC=clang CFLAGS='-g -O1' && make -j"$jobs" fuzz
}

long_fuzz() {
    local target=$1 corpus=$source/tests/fuzz/corpus/${1#fuzz_}
    mkdir -p "$run/$target" && cd "$run/$target" || return 1
    # New inputs go into the first folder: a scratch one, not the source's.
    mkdir -p new && "$build/fuzz/tests/fuzz/$target" -max_total_time=3 -timeout=5 \
        -print_final_stats=1 new "$corpus"
}

long_fuzz_all() {
    step "fuzzing: build" long_build_fuzz || return 1
    local target
    for target in "$build"/fuzz/tests/fuzz/fuzz_*; do
        case $target in
        *.o) continue ;;
        esac
        step "fuzzing: $(basename "$target")" long_fuzz "$(basename "$target")"
    done
}

long_distcheck() {
    cd "$build/plain" && make -j"$jobs" distcheck
}

# The tests have run: the package's build leaves them out.
long_package() {
    DEB_BUILD_OPTIONS=nocheck "$top/scripts/package" -o "$run"
}

long_lintian() {
    lintian --allow-root --fail-on error "$run"/velox-sidecar_*.deb
}

# Most of the time of valgrind's run is one process waiting for another: the rest goes beside it.
long_beside_valgrind() {
    step "analyzer" long_analyzer
    step "address: build" long_build_asan
    step "thread: build" long_build_tsan
    long_sanitizers "address" asan
    long_sanitizers "thread" tsan "$(long_threaded_tests | tr '\n' ' ')"
    long_fuzz_all
    step "make distcheck" long_distcheck
    run_pytest "installation" packaging "$build/plain"
    step "package" long_package
    if command -v lintian >/dev/null 2>&1; then
        step "lintian" long_lintian
    else
        steps_add "lintian, which is not installed" 0 0 1
    fi
}

long_steps() {
    step_or_stop "build" build_plain
    step "clang-format" long_style
    step "shellcheck" long_shellcheck
    step "architecture" long_architecture
    run_pytest "status page: Chromium, Prometheus" e2e/test_status_page.py "$build/plain"
    steps_beside v0 long_valgrind_tests 0
    steps_beside v1 long_valgrind_tests 1
    long_beside_valgrind
    steps_join
}
