# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154
#
# The long part of scripts/test, which sources this file and whose variables ($source, $build, $run,
# $jobs) it uses. It builds four more times: for gcc's analyzer, with sanitizers, for fuzzing, and in
# distcheck.

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
long_gcc_analyzer() {
    configure_in "$build/analyzer" --disable-tests CFLAGS='-g -O1 -fanalyzer' &&
        make -j"$jobs" all
}

long_clang_analyzer() {
    local flags
    flags=$(pkg-config --cflags libevent_core libcurl libcjson inih libcrypto zlib fcgi) || return 1
    # shellcheck disable=SC2086
    find "$source/fcgi" "$source/sidecar" -name '*.c' -print0 | sort -z |
        xargs -0 -n 8 -P "$jobs" clang --analyze -Xclang -analyzer-werror \
            -Xclang -analyzer-output=text -std=gnu11 -D_GNU_SOURCE= -DDEFAULT_CONFIG='""' \
            -DPACKAGE_VERSION='"0"' -I"$source" $flags
}

# One build of clang's for the sanitizers; -O1 keeps stack traces whole and is fast enough.
long_build_asan() {
    configure_in "$build/asan" --enable-sanitizers=address,undefined CC=clang CFLAGS='-g -O1' &&
        make -j"$jobs" all && make -j"$jobs" check TESTS=
}

# A child that a sanitizer ends is started again by its parent and a test may not notice: reports go
# to files, in a folder that the unprivileged child may write to, and a file is a failure.
long_asan_tests() {
    mkdir -p "$run/asan" && chmod 1777 "$run/asan"
    export ASAN_OPTIONS=log_path=$run/asan/report:detect_leaks=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=log_path=$run/asan/report:print_stacktrace=1
    export VELOX_TEST_SLOW=3
    run_check "sanitizers: unit, simulations, corpora" "$build/asan"
    run_pytest "sanitizers: daemon" daemon "$build/asan"
    unset ASAN_OPTIONS UBSAN_OPTIONS VELOX_TEST_SLOW
    step "sanitizers: reports" long_no_reports "$run/asan"
}

long_no_reports() {
    local report result=0
    for report in "$1"/*; do
        [ -s "$report" ] || continue
        head -n 60 "$report"
        result=1
    done
    return $result
}

long_valgrind_tests() {
    mkdir -p "$run/valgrind" && chmod 1777 "$run/valgrind"
    export VELOX_SIDECAR_WRAPPER="valgrind --quiet --trace-children=yes --track-fds=no \
--leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
--error-exitcode=99 --log-file=$run/valgrind/%p.log"
    export VELOX_TEST_SLOW=10
    run_pytest "valgrind: daemon" daemon "$build/plain"
    unset VELOX_SIDECAR_WRAPPER VELOX_TEST_SLOW
    step "valgrind: reports" long_valgrind_reports
}

# A log without an error still holds remarks, on a system call that this valgrind does not know.
long_valgrind_reports() {
    local log result=0
    local errors='Invalid|ninitialised|definitely lost|indirectly lost|overlap|terminating'
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
    mkdir -p new && "$build/fuzz/tests/fuzz/$target" -max_total_time=5 -timeout=5 \
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

long_steps() {
    step_or_stop "build" build_plain
    step "clang-format" long_style
    step "shellcheck" long_shellcheck
    step "architecture" long_architecture
    step "analyzer of gcc" long_gcc_analyzer
    step "analyzer of clang" long_clang_analyzer
    if step "sanitizers: build" long_build_asan; then
        long_asan_tests
    fi
    limit_s=600 long_valgrind_tests
    long_fuzz_all
    step "make distcheck" long_distcheck
}
