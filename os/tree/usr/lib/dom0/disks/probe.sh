# shellcheck shell=sh
# Which block devices there are, and what each of them begins with. Only reads, and mounts nothing.

mib=1048576
mark=dom0-data-being-made # and a UUID, at the start of the last MiB: a file system that we began to make

probe_all() {
    mkdir -p "$facts"
    for name in $(names); do
        [ -b "/dev/$name" ] || rm "$facts/$name"
    done
    for name in $(block_devices); do probe "$name"; done
}

# Without memory, floppies, files (the root file system is one) and what we laid over a disk.
block_devices() {
    for directory in /sys/class/block/*; do
        name=${directory##*/}
        case $name in loop* | ram* | zram* | fd* | dm-* | '*') continue ;; esac
        [ "$(sectors "$name")" = 0 ] || [ ! -b "/dev/$name" ] || echo "$name"
    done
}

sectors() { # NAME: of 512 bytes
    read -r number <"/sys/class/block/$1/size" && echo "$number"
}

probe() { # NAME
    told=$(blkid -p -o udev "/dev/$1" 2>/dev/null | sed -n '
        s/^ID_FS_TYPE=/type=/p; s/^ID_FS_LABEL_ENC=/label=/p; s/^ID_FS_UUID_ENC=/uuid=/p
        s/^ID_PART_TABLE_TYPE=/table=/p; s/^ID_FS_AMBIVALENT=.*/type=ambivalent/p')
    removable=0
    read -r removable 2>/dev/null <"/sys/class/block/$1/removable"
    {
        echo "device=/dev/$1"
        echo "bytes=$(($(sectors "$1") * 512))"
        [ "$removable" = 0 ] || echo "removable=1"
        [ ! -e "/sys/class/block/$1/partition" ] || echo "partition=1"
        [ -z "$told" ] || printf '%s\n' "$told"
        tell_mount_point "$1"
    } >"$facts/.$1"
    mv "$facts/.$1" "$facts/$1"
    case $told in *table=*) return ;; esac
    has_partitions "$1" || probe_further "$1"
}

# Of the whole file system, not of a part that is bound elsewhere.
tell_mount_point() { # NAME
    read -r wanted_number <"/sys/class/block/$1/dev"
    while read -r _ _ number root place _; do
        if [ "$number $root" = "$wanted_number /" ]; then
            printf 'mounted=%s\n' "$place"
            return
        fi
    done </proc/self/mountinfo
}

has_partitions() { # NAME
    for partition in "/sys/class/block/$1/$1"*/partition; do
        [ ! -e "$partition" ] || return 0
    done
    return 1
}

# No partitions, and perhaps no file system: that is not yet a blank disk.
probe_further() { # NAME
    type=$(fact "$1" type)
    if is_half_made "$1" "$type"; then
        set_fact "$1" half_made 1
    elif [ -n "$type" ]; then
        return
    elif is_zero "$1" 0 && is_zero "$1" -1; then
        set_fact "$1" blank 1
    elif [ "$(head -c 29 "/dev/$1" 2>/dev/null | tr -d '\0')" = "boot2docker, please format-me" ]; then
        set_fact "$1" please_format 1
    fi
}

# What a power cut left of a file system of ours: our mark, and beside it nothing, or the file system that the mark
# names, without its label and never mounted. Anything else came later and is somebody's. The label is asked for first:
# our own disk has one, and its boot waits for no end of a disk to be read. A superblock that is half written, or has its
# label and not yet the checksum over that, is no file system to blkid: it is read here. A disk may write its second
# sector before its first.
is_half_made() { # NAME TYPE
    case $2 in '' | ext[234]) ;; *) return 1 ;; esac
    [ -z "$(fact "$1" label)" ] || return 1
    found=$(read_mib "$1" -1 | head -c 64 | tr -d '\0' | head -n 1)
    [ "${found% *}" = $mark ] || return 1
    if [ -z "$2" ] && { read_sectors "$1" 0 3 && read_sectors "$1" 4 4; } | is_nothing; then return; fi
    [ "$(superblock "$1" 56 2)-$(superblock "$1" 104 16)" = "53ef-$(echo "${found#* }" | tr -d -)" ] &&
        was_never_mounted "$1"
}

superblock() { # NAME OFFSET LENGTH: of ext2 and its heirs, in hex
    dd if="/dev/$1" bs=1 skip=$((1024 + $2)) count="$3" 2>/dev/null | hexdump -v -e '1/1 "%02x"'
}

# The time of the last mount, and how many there were.
was_never_mounted() { # NAME
    [ "$(superblock "$1" 44 4)$(superblock "$1" 52 2)" = 000000000000 ]
}

is_nothing() {
    [ "$(tr -d '\0' | wc -c)" = 0 ]
}

is_zero() { # NAME 0|-1: the first or the last MiB of the device is there, and nothing but zeros
    [ "$(sectors "$1")" -ge 4096 ] || return 1
    [ "$(read_mib "$1" "$2" | wc -c)" = $mib ] && read_mib "$1" "$2" | is_nothing
}

read_mib() { # NAME 0|-1
    skip=0
    [ "$2" = 0 ] || skip=$(($(sectors "$1") - 2048))
    read_sectors "$1" $skip 2048
}

read_sectors() { # NAME FIRST COUNT
    dd if="/dev/$1" bs=512 skip="$2" count="$3" 2>/dev/null
}
