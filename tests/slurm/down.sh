#!/usr/bin/env bash
# Stop what up.sh DIR started: its jobs, then its daemons, each by its own process id.
set -uo pipefail
DIR=$(cd "${1:?folder of up.sh}" && pwd)
export SLURM_CONF="$DIR/slurm.conf"
[ -e "$SLURM_CONF" ] || exit 0
timeout 10 scancel --user "$(id -un)" 2>/dev/null
for _ in $(seq 50); do
    [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
    sleep 0.2
done

stop() { # pid file, name of the program
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 0
    kill -TERM "$pid" 2>/dev/null
    for _ in $(seq 50); do
        [ -d "/proc/$pid" ] || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null
}
for node in n1 n2; do stop "$DIR/run/slurmd_$node.pid" slurmd; done
stop "$DIR/run/slurmctld.pid" slurmctld
stop "$DIR/run/munged.pid" munged
if [ "$(readlink /etc/slurm/slurm.conf)" = "$DIR/slurm.conf" ]; then rm -f /etc/slurm/slurm.conf; fi
exit 0
