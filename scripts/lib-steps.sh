# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154,SC2030,SC2031
#
# Steps and counts of scripts/test, which sources this file and gives $run, a folder for scratch
# files. Every step prints one line when it is over; what a step printed is shown only when it
# fails. Counts end in steps_close.

steps_passed=0
steps_failed=0
steps_skipped=0
steps_beside_pids=()
steps_beside_runs=()
steps_said_s=0

# With the seconds since the line before.
steps_say() {
    printf '%-44s %s\n' "$1:" "$2 ($((SECONDS - steps_said_s)) s)"
    steps_said_s=$SECONDS
}

# step NAME COMMAND...: runs it; one passed or one failed.
step() {
    local name=$1 log=$run/step.log
    shift
    if ("$@") >"$log" 2>&1 </dev/null; then
        steps_passed=$((steps_passed + 1))
        steps_say "$name" ok
        return 0
    fi
    steps_failed=$((steps_failed + 1))
    tail -n 200 "$log"
    steps_say "$name" "FAILED"
    return 1
}

# step_or_stop NAME COMMAND...: what the rest cannot do without. Counts only when it fails.
step_or_stop() {
    if step "$@"; then
        steps_passed=$((steps_passed - 1))
        return 0
    fi
    packages_report
    steps_close
}

steps_add() {
    local name=$1 passed=$2 failed=$3 skipped=$4
    steps_passed=$((steps_passed + passed))
    steps_failed=$((steps_failed + failed))
    steps_skipped=$((steps_skipped + skipped))
    steps_say "$name" "$passed passed, $failed failed, $skipped skipped"
}

# One test of a cmocka program is one test; any other program is one.
# cmocka repeats the names of failed tests in its summary, after the line "N test(s) run.".
steps_count_check() {
    local name=$1 result=$2 folder=$3 log=$4 trs counts
    local passed=0 failed=0 skipped=0
    while IFS= read -r trs; do
        counts=$(awk -v state="$(sed -n 's/^:test-result: //p' "$trs")" '
            /^\[=+\] .*test\(s\) run\./ { summary = 1 }
            summary { next }
            /^\[ +OK +\]/ { ok++ }
            /^\[ +FAILED +\]/ { bad++ }
            /^\[ +ERROR +\]/ && !/--- / { bad++ }
            /^\[ +SKIPPED +\]/ { skip++ }
            END {
                if (state ~ /^SKIP/ && !skip) skip = 1
                if (state ~ /^PASS/ && !ok && !skip) ok = 1
                if (state !~ /^(PASS|SKIP)/ && !bad) bad = 1
                print ok + 0, bad + 0, skip + 0
            }' "${trs%.trs}.log")
        # shellcheck disable=SC2086
        set -- $counts
        passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
        [ "$2" -eq 0 ] || tail -n 60 "${trs%.trs}.log"
    done < <(find "$folder/tests" -name '*.trs' | sort)
    if [ "$result" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
        tail -n 60 "$log"
    fi
    [ $((passed + failed)) -gt 0 ] || failed=1
    steps_add "$name" "$passed" "$failed" "$skipped"
}

steps_count_pytest() {
    local name=$1 result=$2 report=$3 counts
    counts=$(/usr/bin/python3 - "$report" <<'PYTHON'
import sys
import xml.etree.ElementTree as tree

total = failed = skipped = 0
try:
    for suite in tree.parse(sys.argv[1]).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
except (OSError, tree.ParseError):
    pass
print(max(0, total - failed - skipped), failed, skipped)
PYTHON
    )
    # shellcheck disable=SC2086
    set -- $counts
    if [ "$result" -ne 0 ] && [ "$2" -eq 0 ]; then
        # 99 is scripts/contain's "left behind", 124 its time limit.
        set -- "$1" 1 "$3"
    fi
    steps_add "$name" "$1" "$2" "$3"
}

# steps_beside FOLDER FUNCTION...: runs steps in the background, with a scratch folder of their own
# below $run; steps_join waits for all of them, shows what they printed and adds their counts.
# "set -m" gives them a process group of their own, by which steps_stop ends all of it.
steps_beside() {
    local beside=$run/$1
    shift
    mkdir -p "$beside"
    set -m
    (
        run=$beside
        steps_beside_pids=()
        steps_passed=0 steps_failed=0 steps_skipped=0
        "$@"
        echo "$steps_passed $steps_failed $steps_skipped" >"$run/counts"
    ) >"$beside/output" 2>&1 </dev/null &
    steps_beside_pids+=("$!")
    steps_beside_runs+=("$beside")
    set +m
}

steps_join() {
    local counts pid beside
    for beside in "${steps_beside_runs[@]}"; do
        pid=${steps_beside_pids[0]}
        wait "$pid"
        steps_beside_pids=("${steps_beside_pids[@]:1}")
        cat "$beside/output"
        counts=$(cat "$beside/counts" 2>/dev/null || echo 0 1 0)
        # shellcheck disable=SC2086
        set -- $counts
        steps_passed=$((steps_passed + $1))
        steps_failed=$((steps_failed + $2))
        steps_skipped=$((steps_skipped + $3))
    done
    steps_beside_runs=()
}

# For an exit before steps_join: scripts/contain, in the group, ends what the tests have started.
steps_stop() {
    local pid
    for pid in "${steps_beside_pids[@]}"; do
        kill -TERM -- "-$pid" 2>/dev/null
    done
    for pid in "${steps_beside_pids[@]}"; do
        wait "$pid" 2>/dev/null
        while kill -0 -- "-$pid" 2>/dev/null; do
            sleep 0.1
        done
    done
}

steps_clang_runs() {
    echo 'int main(void) { return 0; }' |
        clang -fsanitize=address,undefined -x c - -o /dev/null 2>/dev/null
}

steps_close() {
    echo "$steps_passed passed, $steps_failed failed, $steps_skipped skipped"
    [ "$steps_failed" -eq 0 ]
    exit $?
}
