#!/usr/bin/env bash
# Run a command beside a libvirtd of its own, as root: its own sockets, state, configuration and log, gone afterwards.
# The machine's own libvirt is neither used nor disturbed.
#
#   tools/private_libvirtd.sh COMMAND...       the command finds it at qemu:///system
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
    echo "$0: a libvirtd that starts VMs with pinned memory runs as root; run this as root" >&2
    exit 2
fi
for program in unshare libvirtd virsh qemu-system-x86_64 qemu-img; do
    if ! command -v "$program" >/dev/null; then
        echo "$0: there is no $program; apt-get install libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils" >&2
        exit 2
    fi
done

if [ "${NIGHTSHIFT_PRIVATE_LIBVIRTD:-}" != inside ]; then
    NIGHTSHIFT_PRIVATE_LIBVIRTD=inside exec unshare --mount --propagation private --pid --fork --kill-child \
        --mount-proc "$0" "$@"
fi

# In namespaces of our own from here on: mounts are seen by nobody else, and whatever was started ends with this script.
for folder in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
mkdir -p /var/lib/libvirt/qemu /var/log/libvirt/qemu
configuration=$(mktemp -d)
cp -a /etc/libvirt/. "$configuration/"
# As root without a sandbox: nothing that runs in it comes from outside.
cat >>"$configuration/qemu.conf" <<'EOF'
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
namespaces = [ ]
cgroup_controllers = [ ]
EOF
mount --bind "$configuration" /etc/libvirt

pid_file=/run/libvirt/private.pid
finish() {
    local status=$?
    if [ -f "$pid_file" ]; then
        kill "$(cat "$pid_file")" 2>/dev/null || true
    fi
    umount -l /etc/libvirt || true
    rm -rf "$configuration"
    exit "$status"
}
trap finish EXIT

libvirtd --daemon --pid-file "$pid_file"
for _ in $(seq 300); do
    if virsh --connect qemu:///system version >/dev/null 2>&1; then
        "$@"
        exit
    fi
    sleep 0.1
done
echo "$0: libvirtd did not answer within 30 s; its log:" >&2
tail -n 20 /var/log/libvirt/libvirtd.log >&2
exit 1
