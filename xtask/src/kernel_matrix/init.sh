#!/bin/busybox sh
# The first process of the guest. It makes a root of the host's files (9p, read-only) with the guest's memory laid over
# it, and goes on there: every program of the host is in the guest, and nothing that the guest writes reaches the host
# but what goes to the share.
fail() {
    echo "guest: $1"
    /bin/busybox poweroff -f
}
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /host /share /memory /root
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
while read -r module; do
    $bb insmod "/modules/$module" || echo "guest: no $module"
done </modules/order
options=trans=virtio,version=9p2000.L,msize=524288
$bb mount -t 9p -o "ro,cache=loose,$options" hostroot /host || fail "no root from the host"
$bb mount -t 9p -o "rw,cache=none,$options" share /share || fail "no share from the host"
$bb mount -t tmpfs -o size=75% memory /memory
$bb mkdir /memory/upper /memory/work
$bb mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root || fail "no overlay"
$bb mkdir -p /root/mcstat-matrix
$bb mount --move /share /root/mcstat-matrix
for directory in proc sys dev; do
    $bb mkdir -p "/root/$directory"
    $bb mount --move "/$directory" "/root/$directory"
done
exec $bb switch_root /root /bin/bash /mcstat-matrix/run.sh
