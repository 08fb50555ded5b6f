#!/usr/bin/env bash
# Runs a command on Debian's own kernel, in a virtual machine without KVM: for what the kernel of this machine lacks
# (VLAN filtering is usual, and left out of some). The command sees this machine's files, read-only beneath a tmpfs,
# as root, in the folder of the project; its exit status is this script's.
#
#   scripts/on-debian-kernel.sh COMMAND...
#
# Needs Debian's qemu-system-x86, qemu-system-common (virtiofsd), busybox-static and cpio; the kernel is fetched by apt.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 64; }
[ "$(id -u)" = 0 ] || { echo "on-debian-kernel: needs root, which virtiofsd does" >&2; exit 69; }
for program in qemu-system-x86_64 /usr/lib/qemu/virtiofsd busybox cpio; do
  command -v "$program" >/dev/null || { echo "on-debian-kernel: $program is not there" >&2; exit 69; }
done

project=$(cd "$(dirname "$0")/.." && pwd)
cache=$project/node_modules/.cache/debian-kernel
memory=${VM_MEMORY:-3072M}

# The kernel package that Debian's meta package stands for today.
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -1)
[ -n "$package" ] || { echo "on-debian-kernel: apt knows no linux-image-cloud-amd64" >&2; exit 69; }
kernel=$cache/$package
if [ ! -e "$kernel/ready" ]; then
  rm -rf "$cache" && mkdir -p "$kernel"
  (cd "$cache" && apt-get download -qq "$package" 2>/dev/null)
  dpkg-deb -x "$cache/$package"_*.deb "$kernel"
  rm "$cache/$package"_*.deb
  busybox depmod -b "$kernel" "$(ls "$kernel/lib/modules")"
  touch "$kernel/ready"
fi
version=$(ls "$kernel/lib/modules")

work=$(mktemp -d)
daemon=
cleanup() {
  [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

root=$work/initrd
mkdir -p "$root"/{bin,mod,proc,sys,dev,below,above,root}
cp "$(command -v busybox)" "$root/bin/busybox"
for module in virtio/virtio virtio/virtio_ring virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev virtio/virtio_pci; do
  cp "$kernel/lib/modules/$version/kernel/drivers/$module.ko" "$root/mod/"
done
for module in fuse/fuse fuse/virtiofs overlayfs/overlay; do
  cp "$kernel/lib/modules/$version/kernel/fs/$module.ko" "$root/mod/"
done
printf '%q ' "$@" >"$root/command"
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci fuse virtiofs overlay; do
  insmod /mod/\$module.ko
done
mount -t virtiofs -o ro host /below
mount -t tmpfs tmpfs /above && mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work overlay /root
for each in proc sys dev; do mount --move /\$each /root/\$each; done
# The project may lie in one of those that begin empty.
mkdir /project && mount --bind "/root$project" /project
for each in run tmp var/lib/cni; do mkdir -p /root/\$each; mount -t tmpfs tmpfs /root/\$each; done
mkdir -p "/root$project" && mount --bind /project "/root$project"
mkdir -p /root/dev/shm /root/lib/modules/$version
mount -t tmpfs tmpfs /root/dev/shm
mount --bind "/root$kernel/lib/modules/$version" /root/lib/modules/$version
# The kernel looks for its helper where it booted from.
printf '#!/bin/sh\nexec chroot /root busybox modprobe "\$@"\n' >/modprobe && chmod +x /modprobe
echo /modprobe >/root/proc/sys/kernel/modprobe
cp /command /root/run/command
ip link set lo up
{
  chroot /root /bin/bash -c 'ulimit -n 65536; export HOME=/root PATH="$PATH" CI="${CI:-}" NO_COLOR=1; cd "$project"; . /run/command' </root/dev/null
  echo "exit status \$?"
} 2>&1 | cat
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initrd.cpio"

/usr/lib/qemu/virtiofsd --socket-path="$work/socket" -o source=/ -o cache=always -o sandbox=chroot 2>"$work/virtiofsd.log" &
daemon=$!
for _ in $(seq 100); do [ -S "$work/socket" ] && break; sleep 0.05; done

qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -no-reboot \
  -nodefaults -display none -serial stdio \
  -object memory-backend-memfd,id=memory,size="$memory",share=on -numa node,memdev=memory \
  -chardev socket,id=files,path="$work/socket" -device vhost-user-fs-pci,chardev=files,tag=host \
  -kernel "$kernel/boot/vmlinuz-$version" -initrd "$work/initrd.cpio" \
  -append 'console=ttyS0 panic=-1 quiet' </dev/null | tee "$work/output" | sed -u 's/\r$//; /^exit status [0-9]*$/d; /^\[ *[0-9.]*\] reboot: /d'
status=$(sed -n 's/\r$//; s/^exit status \([0-9]*\)$/\1/p' "$work/output" | tail -1)
[ -n "$status" ] || { echo "on-debian-kernel: the machine stopped before the command ended" >&2; exit 70; }
exit "$status"
