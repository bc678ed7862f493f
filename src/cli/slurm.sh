#!/usr/bin/env bash
@HEAD@# shellcheck disable=SC2016,SC1003 # what is quoted is not for this shell to open
#
# Written by `pairwright slurm`, version @VERSION@. Submit it with
#     bash THIS_FILE
# (not with sbatch): that queues a task for each shard, and behind them the job that merges the shards into one run. The same again goes
# on where a failure stopped it. Options of sbatch for the tasks may follow: `bash THIS_FILE --array=3` does one shard again.
#
# A task that runs out of time stops by itself, with exit code 75, and is queued again. It is warned twice: the program looks at the
# clock and at the job's end, and Slurm sends SIGUSR1 120 seconds before it. With `B:` that goes to this script alone, which passes it on;
# without it only steps started by srun would hear it. The script lives on (it does not `exec` the program), to look at the exit code.
set -uo pipefail

program=(@PROGRAM@)
arguments=(@ARGUMENTS@)
out=@OUT@
num_shards=@NUM_SHARDS@

if [[ -z "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    # Not in a task: submit. A task that is queued again has not ended, so the merge goes on waiting for it.
    array="$(sbatch --parsable "$@" "$0")" || exit
    array="${array%%;*}"
    merge="$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --ntasks=1 --requeue \
        @MERGE_OPTIONS@ --wrap=@MERGE@)" || exit
    printf 'tasks  %s (logs: %s-%s_*.log)\nmerge  %s\n' "$array" @LOG@ "$array" "${merge%%;*}"
    printf 'look   squeue --me; %s\n' "$(printf '%q ' "${program[@]}" status "$out")"
    exit 0
fi

task="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
journals="$out/$(printf 'shard-%05d-of-%05d' "$SLURM_ARRAY_TASK_ID" "$num_shards")/journal"
export PAIRWRIGHT_DATE=@DATE@ # one for all shards, however late they begin

num_rows() { cat "$journals"/*.jsonl 2>/dev/null | wc -l; }

say() { printf '%s task %s: %s\n' "$(date +%H:%M:%S)" "$task" "$*"; }

# Older versions of Slurm do not say when the job ends, but know. An empty answer is none: to `date` it would be midnight, long past.
if [[ -z "${SLURM_JOB_END_TIME:-}" ]]; then
    end="$(squeue -h -j "$task" -o %e)"
    [[ -n "$end" ]] && end="$(date -d "$end" +%s 2>/dev/null)" && export SLURM_JOB_END_TIME="$end"
fi

before="$(num_rows)"
say "shard $SLURM_ARRAY_TASK_ID/$num_shards on ${SLURMD_NODENAME:-$HOSTNAME}, start ${SLURM_RESTART_COUNT:-0}, $before lines are there"
"${program[@]}" "${arguments[@]}" --shard "$SLURM_ARRAY_TASK_ID/$num_shards" &
child=$!
trap 'say "told to stop"; kill -USR1 "$child" 2>/dev/null' USR1 TERM
# A signal ends `wait` early; the exit code is that of the last one.
while kill -0 "$child" 2>/dev/null; do wait "$child"; done
wait "$child"
code=$?
say "exit code $code, $(num_rows) lines are there"

# 75: out of time. 137: killed, by a lack of memory or from outside. Queued again only if this start got further, so that no task starts
# for ever, and only while the job runs: one that is being cancelled stays so, and one that makes room is queued again by Slurm.
if [[ "$code" == 75 || "$code" == 137 ]]; then
    if (($(num_rows) <= before)); then
        say "not one row was done: give more hours or memory"
        exit "$code"
    fi
    # SIGNALING: Slurm has not heard yet that its warning arrived. Nothing: it cannot be asked now. Both pass.
    for _ in {1..30}; do
        state="$(squeue -h -j "$task" -o %T)"
        [[ -z "$state" || "$state" == SIGNALING ]] || break
        sleep 1
    done
    if [[ "$state" == RUNNING ]]; then
        say "queued again"
        # By array and task: the number of one task is also that of the whole array.
        scontrol requeue "$task" && exit 0
    else
        say "not queued again: to Slurm it is ${state:-unknown}"
    fi
fi
exit "$code"
