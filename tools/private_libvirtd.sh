#!/usr/bin/env bash
# Run a command beside a libvirtd of its own, as root: its own sockets, state, configuration and log, gone afterwards.
# The machine's own libvirt is neither used nor disturbed.
#
#   tools/private_libvirtd.sh COMMAND...       the command finds it at qemu:///system
#
# It answers over TLS on the loopback too: NIGHTSHIFT_TEST_TLS is where, and in NIGHTSHIFT_TEST_PKI are two sets of
# certificates, `known` and `stranger`, of which the second is signed by somebody else.
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
    echo "$0: a libvirtd that starts VMs with pinned memory runs as root; run this as root" >&2
    exit 2
fi
for program in unshare libvirtd virsh qemu-system-x86_64 qemu-img openssl python3; do
    if ! command -v "$program" >/dev/null; then
        echo "$0: there is no $program; apt-get install libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils openssl" >&2
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

# A CA signs the server and whoever is known; another one the stranger.
sign() {
    local ca=$1 name=$2 folder=$3 extensions=$4
    mkdir -p "$folder"
    openssl req -newkey rsa:2048 -nodes -keyout "$folder/${name}key.pem" -out "$folder/$name.csr" -subj "/CN=$name" 2>/dev/null
    openssl x509 -req -in "$folder/$name.csr" -CA "$ca/cacert.pem" -CAkey "$ca/cakey.pem" -CAcreateserial -days 2 \
        -out "$folder/${name}cert.pem" -extfile <(printf '%s\n' "$extensions") 2>/dev/null
}
pki=$configuration/pki
for ca in ours theirs; do
    mkdir -p "$pki/$ca"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$ca" -keyout "$pki/$ca/cakey.pem" -out "$pki/$ca/cacert.pem" \
        2>/dev/null
done
sign "$pki/ours" server "$pki/server" $'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth'
sign "$pki/ours" client "$pki/known" 'extendedKeyUsage=clientAuth'
sign "$pki/theirs" client "$pki/stranger" 'extendedKeyUsage=clientAuth'
cp "$pki/ours/cacert.pem" "$pki/known/"
cp "$pki/ours/cacert.pem" "$pki/stranger/"
tls_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >>"$configuration/libvirtd.conf" <<EOF
listen_tls = 1
listen_tcp = 0
listen_addr = "127.0.0.1"
tls_port = "$tls_port"
key_file = "$pki/server/serverkey.pem"
cert_file = "$pki/server/servercert.pem"
ca_file = "$pki/ours/cacert.pem"
EOF
export NIGHTSHIFT_TEST_TLS=qemu+tls://127.0.0.1:$tls_port/system NIGHTSHIFT_TEST_PKI=$pki

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

libvirtd --daemon --listen --pid-file "$pid_file"
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
