#!/usr/bin/env bash
# Start a throw-away SLURM with two nodes (fake GPUs, no accounting) on loopback: up.sh DIR PORT, for the ports PORT..PORT+2.
# Prints `export SLURM_CONF=...` once both nodes are idle. Run as root; down.sh DIR stops it.
set -euo pipefail
DIR=${1:?folder for its state} PORT=${2:?first of three free ports}
DIR=$(mkdir -p "$DIR" && cd "$DIR" && pwd)
HERE=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin

# Jobs find the configuration only here: the executor drops SLURM_CONF from their environment. Never touch a real one.
PUBLIC=/etc/slurm/slurm.conf
# What an interrupted test left is no cluster: a link to a throw-away one whose controller is gone.
if [ -L "$PUBLIC" ] && old=$(dirname "$(readlink "$PUBLIC")") && grep -qs '^ClusterName=throwaway' "$PUBLIC" &&
    [ "$(cat "/proc/$(cat "$old/run/slurmctld.pid" 2>/dev/null)/comm" 2>/dev/null)" != slurmctld ]; then
    rm -f "$PUBLIC"
fi
if [ -e "$PUBLIC" ]; then
    echo "$PUBLIC exists: this machine has a SLURM already" >&2
    exit 3
fi

mkdir -p "$DIR"/{munge,state,log,spool/n1,spool/n2,run}
chmod 700 "$DIR/munge"
chmod 755 "$DIR" "$DIR/run"
(umask 377 && dd if=/dev/urandom of="$DIR/munge/munge.key" bs=1024 count=1 status=none)
munged --force --key-file="$DIR/munge/munge.key" --socket="$DIR/run/munge.sock" --pid-file="$DIR/run/munged.pid" \
    --log-file="$DIR/munge/munged.log" --seed-file="$DIR/munge/munged.seed" --num-threads=2

for file in slurm.conf gres.conf; do
    sed -e "s#@DIR@#$DIR#g; s#@HOST@#$(hostname -s)#g; s#@USER@#$(id -un)#g; s#@CPUS@#${SLURM_TEST_CPUS:-4}#g" \
        -e "s#@MEMORY@#${SLURM_TEST_MEMORY:-16000}#g; s#@PORT0@#$PORT#g; s#@PORT1@#$((PORT + 1))#g; s#@PORT2@#$((PORT + 2))#g" \
        "$HERE/$file.in" >"$DIR/$file"
done
# Must exist, else slurmd looks for cgroups and systemd.
printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n' >"$DIR/cgroup.conf"
# A fake GPU must be a character device, or jobs get no CUDA_VISIBLE_DEVICES; these are /dev/null.
for node in n1 n2; do for gpu in 0 1; do mknod "$DIR/run/gpu_${node}_$gpu" c 1 3; done; done

mkdir -p "$(dirname "$PUBLIC")"
ln -sfn "$DIR/slurm.conf" "$PUBLIC"
export SLURM_CONF="$DIR/slurm.conf"
slurmctld -c -f "$SLURM_CONF"
for node in n1 n2; do slurmd -N "$node" -f "$SLURM_CONF"; done
for _ in $(seq 100); do
    if [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = 2 ]; then
        echo "export SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.2
done
echo "SLURM did not come up; see $DIR/log" >&2
exit 1
