# shellcheck shell=sh
# Mounts what was chosen at /data, and its parts where they are used. What cannot be mounted is said, and memory takes its
# place: the boot goes on.

reserve_kib=32768 # kept free for the Engine on a disk that somebody fills to the last byte
label_deadline=5  # seconds for a disk with our label to appear
named_deadline=30 # for one that the boot contract names, and before one is taken that is not ours
quiet=5           # without anything new on a bus where disks come late

mount_data() {
    alone disk
    mkdir -p "$facts"
    : >$run/disk.problems
    probe_all
    await_disks
    names >$run/disks.known
    choose
    case $choice in
    own) mount_own ;;
    boot2docker) mount_boot2docker ;;
    adopt) mount_adopted ;;
    format) mount_new ;;
    memory) false ;;
    esac || mount_memory
    follow_store
    tell_data
    write_json
}

# A disk may need seconds until its driver shows it. Waits for the one that is most wanted, not for all.
await_disks() {
    began=$(seconds)
    case $wanted in
    ram) ;;
    auto) await_until is_past $label_deadline || await_before_taking_another ;;
    *) await_until is_past $named_deadline ;;
    esac
}

# Another machine's disk would be written to and be this one's from then on; a disk that is formatted or adopted would be
# a second one when our own is there again. Neither can be taken back, so ours has more time.
await_before_taking_another() {
    choose
    case $choice in format | adopt) await_until all_is_there && return ;; esac
    [ -n "$(wanted_disks)" ] || return
    say "the only data disk here is one that another machine used last; waiting up to $named_deadline s for one of this machine"
    await_until is_past $named_deadline
}

await_until() { # CONDITION ...: fails if that comes before a disk of ours
    while [ -z "$(awaited_disks)" ]; do
        ! "$@" || return 1
        sleep 0.2
        for name in $(block_devices); do
            [ -f "$facts/$name" ] || probe "$name" || :
        done
    done
}

# One that another machine used last ends no wait: it may be there only to be looked at.
awaited_disks() {
    for name in $(wanted_disks); do
        [ "$wanted" = auto ] && is_anothers "$name" || echo "$name"
    done
}

is_past() { # SECONDS of waiting
    [ "$(seconds)" -ge $((began + $1)) ]
}

# The kernel ends the loading of a module when all disks are found that its driver looks for, and that was before us. Only
# on USB and in card readers they come later: hubs and disks there tell of themselves one after the other.
all_is_there() {
    if [ -z "$(ls /sys/bus/usb/devices /sys/class/mmc_host 2>/dev/null)" ] || is_past $named_deadline; then
        return 0
    fi
    now=$(ls /sys/bus/usb/devices /sys/bus/mmc/devices /sys/class/block 2>/dev/null)
    if [ "$now" != "${before-nothing}" ] || is_usb_disk_coming; then
        before=$now quiet_since=$(seconds)
    fi
    [ "$(seconds)" -ge $((quiet_since + quiet)) ]
}

# A USB disk is a SCSI host at once, and a block device when it spins.
is_usb_disk_coming() {
    for host in /sys/bus/usb/devices/*/host*; do
        set -- "$host"/target*/*/block
        [ ! -d "$host" ] || [ -d "$1" ] || return 0
    done
    return 1
}

# A disk that came too late is not mounted under a running Engine; somebody has to know of it. So of a store that nobody
# has asked for.
watch() {
    [ "$wanted" != ram ] && grep -qx kind=memory $run/data || return 0
    tell_of_stores
    for _ in $(seq 300); do
        for name in $(block_devices); do
            grep -qx "$name" $run/disks.known || tell_late "$name"
        done
        sleep 2
    done
}

tell_of_stores() {
    [ "$adopt" = ignore ] || return 0
    alone disk
    stores=$(foreign_stores)
    [ -z "$stores" ] || warn "another Linux's Docker store is on$(told "$stores"); it is used with adopt=use-readonly or \
adopt=use in the boot contract"
    write_json
    let_others disk
}

tell_late() { # NAME
    alone disk
    echo "$1" >>$run/disks.known
    [ -f "$facts/$1" ] || probe "$1" # else a survey has met it first
    if wanted_disks | grep -qx "$1"; then
        warn "/dev/$1 came after the boot had gone on without it; the next boot takes it"
    fi
    write_json
    let_others disk
}

wanted_disks() {
    case $wanted in
    auto) with_fact label dom0-data ;;
    *) matching "$wanted" ;;
    esac
}

seconds() {
    read -r uptime _ </proc/uptime && echo "${uptime%.*}"
}

# Our own disk is mended where that loses nothing; a foreign one never.
mount_own() {
    device=/dev/$chosen
    can_be_written "$device" || return 1
    case $(fact "$chosen" type) in
    ext[234])
        kind=ext4
        said=$(e2fsck -p "$device" 2>&1)
        code=$?
        if [ $code -ge 4 ]; then
            reason="$device is damaged, and is not mounted; at the console: e2fsck $device"
            return 1
        elif [ $code -ge 1 ]; then
            warn "$device was damaged, and could be mended: $(echo "$said" | tail -n 1 | plain)"
        fi
        ;;
    *) kind=$(fact "$chosen" type) ;;
    esac
    if ! mount -t "$kind" -o noatime "$device" /data; then
        reason="$device cannot be mounted"
        return 1
    fi
    data_kind=disk
    keep_reserve
    bind /data/var/lib/docker /data/var/lib/dom0
    keep_machine || :
}

# Without that e2fsck finds it damaged, and busybox mounts it for reading only.
can_be_written() { # DEVICE
    [ "$(blockdev --getro "$1")" != 1 ] || {
        reason="$1 is write-protected, and is not mounted: by a switch on it, or because it is worn out"
        return 1
    }
}

mount_new() {
    say "formatting /dev/$chosen: $reason"
    if ! said=$(make_data_disk "$chosen" 2>&1); then
        reason="/dev/$chosen could not be formatted: $(echo "$said" | plain)"
        return 1
    fi
    probe "$chosen"
    mount_own
}

mount_boot2docker() {
    look_into "$chosen"
    if [ -n "$(fact "$chosen" store)" ]; then
        obstacle=$(obstacle_to_adoption "$chosen" boot2docker)
        if [ -n "$obstacle" ]; then
            reason="/dev/$chosen is boot2docker's, and cannot be used: $obstacle"
            return 1
        fi
    fi
    can_be_written "/dev/$chosen" && mount_foreign "/dev/$chosen" /data "$(fact "$chosen" type)" || return 1
    data_kind=boot2docker
    bind /data/var/lib/docker /data/var/lib/dom0
    tell_of_boot2dockers_programs
}

# They were written for a Tiny Core Linux, and would be run as root; `profile` with settings of its Engine.
tell_of_boot2dockers_programs() {
    for program in profile bootsync.sh bootlocal.sh; do
        if [ -e /data/var/lib/boot2docker/$program ] && [ ! -e /var/lib/dom0/bootlocal.sh ]; then
            warn "/data/var/lib/boot2docker/$program is not run, because it was written for another system; what it did \
goes into /var/lib/dom0/bootlocal.sh"
        fi
    done
}

# The other Linux's /etc is not ours: what we keep besides the Engine's store lies in its var/lib/dom0.
mount_adopted() {
    data_kind=adopted
    device=/dev/$chosen
    if [ "$adopt" = use-readonly ]; then
        data_kind=read-only
        lay_memory_over "$chosen" adopted || {
            reason="/dev/$chosen cannot be used read-only: this kernel keeps no changes in memory"
            return 1
        }
        device=/dev/mapper/dom0-adopted
    else
        can_be_written "$device" || return 1
    fi
    mkdir -p /foreign
    mount_foreign "$device" /foreign "$(fact "$chosen" type)" || return 1
    store=/foreign/$(fact "$chosen" store_path)
    own=$(dirname "$store")/dom0
    [ "$(fact "$chosen" store_path)" != . ] || own=/foreign/.dom0
    if ! { mkdir -p "$own/host" && mount --bind "$own/host" /data && bind "$store" "$own"; }; then
        umount /data /foreign
        reason="on /dev/$chosen there is no place for dom0's own"
        return 1
    fi
}

mount_foreign() { # DEVICE PLACE KIND
    kind=$3
    case $kind in ext[23]) kind=ext4 ;; esac
    mount -t "$kind" -o noatime "$1" "$2" || {
        reason="$1 cannot be mounted: damaged, or in use"
        return 1
    }
}

mount_memory() {
    data_kind=memory chosen=''
    mount -t tmpfs -o mode=755,size=80% tmpfs /data
    bind /data/var/lib/docker /data/var/lib/dom0
}

bind() { # STORE STATE
    mkdir -p /data/etc "$1" "$2" /var/lib/docker /var/lib/dom0
    mount --bind "$1" /var/lib/docker && mount --bind "$2" /var/lib/dom0
}

# A file that is given up when the disk is full: without any space the Engine does not start, and nobody can tidy up.
keep_reserve() {
    mkdir -p /data/etc
    if [ "$(free_kib)" -lt $((reserve_kib / 2)) ]; then
        problem data-full "/dev/$chosen, the data disk, is full: $(free_kib) KiB are free"
        rm -f /data/etc/reserve
    elif [ ! -e /data/etc/reserve ] && [ "$(free_kib)" -gt $((reserve_kib * 8)) ]; then
        fallocate -l $((reserve_kib * 1024)) /data/etc/reserve || rm -f /data/etc/reserve
    fi
}

free_kib() {
    df -k /data | awk 'END { print $4 }'
}

keep_machine() {
    kept=
    [ ! -f /data/etc/dom0-machine ] || read -r kept </data/etc/dom0-machine
    [ "$kept" != "$(machine_id)" ] || return 0
    machine_id >/data/etc/dom0-machine.new && sync && mv /data/etc/dom0-machine.new /data/etc/dom0-machine
}

# Engines keep images in two ways, and see only those that are kept in theirs. The one of this boot follows the store.
follow_store() {
    top=/var/lib/docker
    kinds=$(store_kinds .)
    case " $kinds " in
    '  ' | *' containerd '*) ;;
    *' overlay2 '*) sed -i 's/^ *"features":.*/    "storage-driver": "overlay2",/' /etc/docker/daemon.json ;;
    *) problem data-disk "the Engine's store is of kind $kinds: what is in it is kept, and not seen by the Engine here" ;;
    esac
}

tell_data() {
    {
        echo "kind=$data_kind"
        [ -z "$chosen" ] || echo "device=/dev/$chosen"
        [ -z "$chosen" ] || echo "uuid=$(fact "$chosen" uuid)"
        echo "reason=$reason"
    } >$run/data
    [ -z "$warning" ] || problem data-disk "$warning"
    if [ "$data_kind" != memory ]; then
        say "data on /dev/$chosen: $reason"
        [ "$data_kind" != read-only ] || say "WHAT CHANGES IS IN MEMORY, lost at power-off"
    elif [ "$wanted" = ram ]; then
        say "DATA IN MEMORY, lost at power-off: $reason"
    else
        problem data-in-memory "DATA IN MEMORY, lost at power-off: $reason"
    fi
}
