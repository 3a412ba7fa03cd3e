#!/bin/sh
# An image's unpacked root, a user and a command in; the command run as a hardened container runs it: as process 1 of
# its own process and mount namespaces, on a read-only root with a writable /tmp, without any capability.
# usage: unshare --mount --pid --fork sandbox.sh ROOT UID:GID COMMAND...
set -eu
root=$1 user=$2
shift 2

mount --bind "$root" "$root"
mount -o ro,nosuid,nodev,noexec -t proc proc "$root/proc"
mount -o ro,bind /sys "$root/sys"
mount -o nosuid,mode=755 -t tmpfs tmpfs "$root/dev"
for node in null zero random urandom; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -o remount,ro "$root/dev"
mount -o nosuid,nodev,noexec,mode=1777 -t tmpfs tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"

exec chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
    --bounding-set=-all --no-new-privs "$@"
