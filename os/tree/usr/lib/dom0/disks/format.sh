# shellcheck shell=sh
# Makes a data disk of a blank one. A power cut at any moment leaves a disk that is blank, or one that is_half_made, or a
# data disk: our mark is written first and names the file system, and that gets its label last.

# The shell's own program of that name knows no ext4. Blocks of 4096 bytes leave all before the second one empty until the
# superblock is written; is_half_made counts on that.
make_data_disk() { # NAME; fails with words on standard error
    id=$(cat /proc/sys/kernel/random/uuid)
    kib=$(($(sectors "$1") / 2 - 1024)) # the last MiB is for the mark
    write_mark "$1" "$mark $id" &&
        /usr/sbin/mke2fs -q -F -t ext4 -b 4096 -m 1 -U "$id" "/dev/$1" "${kib}k" </dev/null >&2 &&
        sync &&
        e2label "/dev/$1" dom0-data &&
        sync &&
        write_mark "$1" ''
}

write_mark() { # NAME TEXT: all of it in one sector, so it is there or not
    printf '%s\n' "$2" | dd of="/dev/$1" bs=512 seek=$(($(sectors "$1") - 2048)) count=1 \
        conv=sync,fsync,notrunc 2>/dev/null
}

format_by_hand() { # DEVICE [--yes]
    probe_all
    format_known "${1#/dev/}" "$@"
}

# What is about to be written to is in the arguments throughout: a variable is anybody's.
format_known() { # NAME DEVICE [--yes]
    if ! is_known "$1"; then
        refuse "$2: there is no such disk" "\`disk ls\` lists them"
    elif ! is_free "$1"; then
        refuse "$2: is not blank$(said_type "$1")" \
            "only a disk without anything on it is formatted, at least 64 MiB; to clear one for good, write zeros over all of it"
    fi
    [ "${3-}" = --yes ] || ask_for_name "$2"
    make_data_disk "$1" || refuse "$2: could not be formatted" "dmesg may say more"
    echo "$2: is a data disk now, labelled dom0-data; the next boot takes it"
}

ask_for_name() { # DEVICE
    printf '%s (%s MiB) becomes a data disk. Type its name to go on: ' "$1" $(($(fact "${1#/dev/}" bytes) / mib)) >&2
    read -r typed || typed=
    [ "$typed" = "$1" ] || refuse "$1: left as it is" "what was typed is another name"
}
