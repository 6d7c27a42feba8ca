#!/bin/sh
# The inside of Machine::boot: PID 1 of PID and mount namespaces of its own, so that when the test process dies,
# however it dies, every process and every mount made here goes with it.
#   $1 an empty directory   $2 the root to boot   $3 our cgroup   $4 the opnix binary
#   $5 what installs it (systemd/install), or a directory to lay over the root instead
#   $6 a directory with what outlives the machine, or nothing   $7 1, or 0 for cgroups of version 1 only
#   and further options of systemd-nspawn
set -eu
place=$1 lower=$2 cgroup=$3 binary=$4 opnix=$5 disk=$6 unified=$7
shift 7

# systemd-nspawn makes its own cgroups beside the one it is in: give it one where it disturbs nobody.
echo $$ >"$cgroup/cgroup.procs"

# Its state directory is on the host's /run: keep what it writes there from outliving us, too.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn

mount -t tmpfs -o mode=0755 tmpfs "$place"
mkdir -m 0755 "$place/upper" "$place/work" "$place/root"
root=$place/root
mount -t overlay -o "lowerdir=$lower,upperdir=$place/upper,workdir=$place/work" overlay "$root"

# What the host runs and mounts is noise here, or harm: no enabled unit, no rc script, no mount is taken over.
# A machine-id of its own, and not an empty one: that would be a first boot, which enables all units again.
rm -rf "$root"/etc/systemd/system/* "$root"/etc/rc?.d "$root/etc/machine-id"
: >"$root/etc/fstab"
: >"$root/etc/crypttab"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
ln -s /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
# console-getty is of Type=idle: it alone makes a boot five seconds longer.
for unit in console-getty.service getty.target systemd-networkd-wait-online.service \
    NetworkManager-wait-online.service systemd-random-seed.service; do
    ln -s /dev/null "$root/etc/systemd/system/$unit"
done

mkdir -p "$root/etc/systemd/journald.conf.d"
cat >"$root/etc/systemd/journald.conf.d/zz-test.conf" <<'END'
[Journal]
Storage=volatile
RateLimitIntervalSec=0
RateLimitBurst=0
END

# What the caller prepared: opnix as a package installs it, or a whole host's configuration.
version=$(chroot "$root" systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
if [ -d "$opnix" ]; then
    cp -R "$opnix/." "$root"
else
    DESTDIR=$root BINARY=$binary SYSTEMD_VERSION=$version "$opnix"
fi

# The machine's disk, as far as it is to be the same after the next boot.
if [ -n "$disk" ]; then
    # Of a host that was laid out as a whole, its own units say what is kept.
    kept="/var/lib/private /var/lib/systemd /etc/credstore.encrypted /etc/opnix /usr/local/lib/systemd/system"
    [ ! -d "$opnix" ] || kept=/persist
    for directory in $kept; do
        mkdir -p "$disk$directory" "$root$directory"
        set -- "$@" "--bind=$disk$directory:$directory"
    done
    [ -d "$opnix" ] || chmod 0700 "$disk/var/lib/private"
    # systemd's host key opens for the same machine only.
    [ -e "$disk/machine-id" ] || cp "$root/etc/machine-id" "$disk/machine-id"
    cp "$disk/machine-id" "$root/etc/machine-id"
fi

# 262 boots on the unified hierarchy only; opnix is meant for it.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=$unified
exec systemd-nspawn --boot --directory="$root" --machine=opnix-test --private-network \
    --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off "$@"
