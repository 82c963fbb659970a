# Runs the tests named in `tests` (name, limit in seconds, program and its arguments, by tabs) and writes one line for
# each into `results`: name, exit code, tenths of a second. Then the guest is switched off.
cd /mcstat-matrix || exit 1
. ./environment
export HOME=/root PATH RUST_BACKTRACE=1
mount -t tmpfs run /run
mkdir -p /run/lock /run/netns /dev/pts /dev/shm /sys/fs/bpf
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
ln -sfn /proc/self/fd /dev/fd
# The kernel loads its modules by itself, by way of modprobe; who opens /dev/net/tun has udev do it, which is not here.
mkdir -p "/lib/modules/$RELEASE"
mount --bind "$MODULES" "/lib/modules/$RELEASE"
modprobe tun
ip link set lo up
read -r up _ </proc/uptime
echo "guest: $(uname -r) is up after $up s"
# Open vSwitch 3.1 that is started in the first ten seconds has no handler threads and loses every upcall.
while read -r up _ </proc/uptime && [ "${up%.*}" -lt 11 ]; do sleep 1; done
: >results
while IFS=$'\t' read -r name limit program arguments; do
    echo "guest: $name"
    begin=$(date +%s%N)
    cd "$PACKAGE" || exit 1
    # shellcheck disable=SC2086 # the arguments are words
    timeout --kill-after=10 "$limit" "$program" $arguments >"/mcstat-matrix/$name.log" 2>&1 </dev/null
    code=$?
    end=$(date +%s%N)
    printf '%s\t%s\t%s\n' "$name" "$code" "$(((end - begin) / 100000000))" >>/mcstat-matrix/results
done </mcstat-matrix/tests
dmesg >/mcstat-matrix/dmesg.log
sync
/bin/busybox poweroff -f
