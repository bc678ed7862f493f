#!/usr/bin/env bash
# `pairwright slurm` on a real Slurm, with its daemons on this machine: an array of four tasks, one of which is killed in the middle and
# one of which runs out of time, then the merge that depends on them. The merged dataset must have the bytes of a single run's, and a
# requeued task must have gone on where it was. Leaves nothing running. Says nothing about GPUs, nor about several machines.
#   scripts/check_slurm.sh            needs root, slurmctld, slurmd and munge
#   scripts/check_slurm.sh --can      whether these are there; --install gets them on Debian, as root
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin"

if [[ "${1:-}" == --install ]]; then
    # Packages start daemons that nobody asked for, unless a policy says otherwise.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
        trap 'rm -f $policy' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
    exit
fi
can() {
    # One by one: of several names `command -v` is content with one.
    for name in slurmctld slurmd munged sbatch scontrol; do command -v $name >/dev/null || return; done
    [[ "$(id -u)" == 0 ]]
}
if ! can; then
    echo "check_slurm: needs root, slurmctld, slurmd and munge (--install gets the programs)" >&2
    exit 3
fi
[[ "${1:-}" != --can ]] || exit 0

fail() {
    echo "check_slurm: $*" >&2
    tail -n 20 "$folder"/pw-*.log "$folder"/*ctld.log "$folder"/slurmd.log >&2 || true
    exit 1
}

folder=$(mktemp -d)
daemons=()
clean_up() {
    scancel --user="$(id -un)" 2>/dev/null || true
    # Started last, stopped first: jobs end while there is still somebody to tell.
    for ((at = ${#daemons[@]} - 1; at >= 0; at--)); do
        kill "${daemons[at]}" 2>/dev/null && wait "${daemons[at]}" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap clean_up EXIT

cargo build --release --locked
program=$(realpath "${CARGO_TARGET_DIR:-target}/release/pairwright")

# A cluster of this machine, with four cores whatever it has. No cgroups, so that it runs in a container too.
host=$(hostname -s)
chmod 755 "$folder"
mkdir "$folder"/{state,spool}
head -c 1024 /dev/urandom >"$folder/munge.key"
chmod 600 "$folder/munge.key"
port=$((20000 + $$ % 20000))
cat >"$folder/slurm.conf" <<END
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
# A task that is queued again waits until its credential has run out: 120 seconds, unless this says less.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2,sched_interval=2
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
# The word for none came with version 23.11; before it a plugin must be named, and is not used.
version=$(slurmctld -V | awk '{ print $2 }')
if [[ "$(printf '%s\n' 23.11 "$version" | sort -V | head -1)" == 23.11 ]]; then
    echo "CgroupPlugin=disabled" >"$folder/cgroup.conf"
else
    echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf"
fi
export SLURM_CONF="$folder/slurm.conf"

# start NAME COMMAND...: a daemon in the foreground of this shell's background.
start() {
    local name=$1
    shift
    "$@" >"$folder/$name.log" 2>&1 &
    daemons+=($!)
}
start munged munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged-own.log" --seed-file="$folder/munge.seed"
for _ in {1..50}; do [[ -S "$folder/munge.socket" ]] && break || sleep 0.1; done
start slurmctld slurmctld -D
start slurmd slurmd -D
for _ in {1..100}; do
    [[ "$(sinfo -h -o %t 2>/dev/null)" == idle ]] && break
    sleep 0.3
done
[[ "$(sinfo -h -o %t 2>/dev/null)" == idle ]] || fail "the cluster did not come up"
echo "check_slurm: $(slurmctld -V) runs"

# Jobs run where they are submitted.
cd "$folder"
export PAIRWRIGHT_DATE=2026-11-26
"$program" make --demo --out demo -q
for n in {1..16}; do
    sed "s/\"inputs\": \"/&$n. /" demo/demo/prompts.jsonl
done >prompts.jsonl
arguments=(make --prompts prompts.jsonl --generator demo/demo/model --judge demo/demo/model -n 2 --max-tokens 96 --threads 1)
"$program" "${arguments[@]}" --out whole -q
# One row at a time, so that tasks are long enough to be caught; a folder's name that only a quoted one survives.
out="it's \$HOME (shards)"
"$program" slurm --tasks 4 --hours 0.5 --cpus 1 --job-name pw -- "${arguments[@]}" --max-batch 1 --out "$out" >job.sbatch
bash job.sbatch | tee submitted
array=$(awk '$1 == "tasks" { print $2 }' submitted)
merge=$(awk '$1 == "merge" { print $2 }' submitted)

lines() { cat "$out/shard-0000$1-of-00004/journal"/*.jsonl 2>/dev/null | wc -l; }
until_lines() {
    for _ in {1..600}; do
        (($(lines "$1") < $2)) || return 0
        sleep 0.1
    done
    fail "task $1 does not begin"
}
# The programs alone, not the scripts around them.
signal() { pgrep -f -- "$program make .*--shard $2/4" | xargs kill "-$1"; }
until_lines 1 40
signal KILL 1 # as the kernel does where memory is lacking
# One minute is all that task 2 may have from now on, so Slurm warns it as soon as it looks at the clock, twice a minute. Until then
# the program stands still, whatever the speed of this machine.
until_lines 2 40
signal STOP 2
scontrol update JobId="${array}_2" TimeLimit=1
for _ in {1..450}; do
    grep -q "told to stop" pw-"${array}"_2.log && break
    sleep 0.1
done
signal CONT 2
"$program" status "$out"

for ((seconds = 0; seconds < 300; seconds += 2)); do
    state=$(scontrol show job "$merge" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')
    [[ "$state" =~ ^(PENDING|RUNNING|CONFIGURING|COMPLETING)$ ]] || break
    sleep 2
done
squeue -a
cat pw-*.log
[[ "$state" == COMPLETED ]] || fail "the merge is $state"
grep -q "start 1" pw-"${array}"_1.log || fail "the killed task was not queued again"
grep -q "exit code 137" pw-"${array}"_1.log || fail "the killed task was not killed"
grep -q "start 1" pw-"${array}"_2.log || fail "the task without time was not queued again"
grep -q "told to stop" pw-"${array}"_2.log || fail "the task without time was not warned"
grep -q "exit code 75" pw-"${array}"_2.log || fail "the task without time did not stop by itself"
"$program" status "$out"

digest() { (cd "$1" && find dataset report.md report.html summary.json prompts.jsonl -type f -exec sha256sum {} + | LC_ALL=C sort -k2); }
digest "$out"
[[ "$(digest whole)" == "$(digest "$out")" ]] || fail "the merged dataset is not that of a single run"
for stage in candidates verdicts; do
    # Checksums name the run, which has another batch; the rows behind them are the same, in whatever order they came.
    rows() { sed -e 1d -e 's/^.*"row"://' "$1/journal/$stage.jsonl" | LC_ALL=C sort | sha256sum; }
    [[ "$(rows whole)" == "$(rows "$out")" ]] || fail "the journals of $stage differ"
done
before=$(digest "$out")
"$program" merge "$out" 2>&1 | grep -q "nothing to do" || fail "a second merge had something to do"
[[ "$(digest "$out")" == "$before" ]] || fail "a second merge changed the dataset"
echo "check_slurm: four tasks, one killed, one out of time; merged, they have the bytes of one run"
