#!/usr/bin/env bash
# Sets up the host, builds a small fleet of real disk images, scans it, checks it against rule packs
# and writes a report. Running it again rebuilds nothing and scans into a new run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash examples/setup.sh --no-appliance

work=${FLEETSCAN_EXAMPLES_DIR:-.fleetscan}
facts=$work/facts
report=$work/report.html
fleetscan=.venv/bin/fleetscan

# show WORD...: a command as one would type it.
show() {
    local word
    for word; do
        [[ $word != *' '* ]] || word="'$word'"
        printf '%s ' "$word"
    done
}

# step STATUS... -- COMMAND...: run a command that may end with these statuses beside 0.
step() {
    local allowed=0 status=0
    while [[ $1 != -- ]]; do
        allowed+=" $1"
        shift
    done
    shift
    local words=("${@##*/bin/}")
    printf '\n$ %s\n' "$(show "${words[@]}")"
    "$@" || status=$?
    [[ " $allowed " == *" $status "* ]] || exit "$status"
}

printf '\nbuilding the appliance and the example fleet\n'
.venv/bin/python -m examples.build_fleet fleet

# 3: two of the machines cannot be scanned, which is what they are there for.
step 3 -- "$fleetscan" scan "$work/fleet" --facts "$facts"
# 2: rules fail, on one machine above all.
step 2 -- "$fleetscan" check --facts "$facts"
step -- "$fleetscan" query --facts "$facts" \
    'select distro, count(*) as machines from operating_systems group by 1'
step -- "$fleetscan" report --facts "$facts" --html "$report"

cat <<END

As intended, blank.raw (a disk without an operating system) and truncated.qcow2 (cut off) failed,
and debian12.qcow2 violates rules.

report: $(realpath "$report")
facts:  $(realpath "$facts")
END
