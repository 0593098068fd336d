# shellcheck shell=sh
# Looks into file systems without changing a bit of their disks: the kernel is told that the device is read-only before
# the file system is mounted, and a journal is not replayed.
#
# What lies in them is hostile: no symbolic link of theirs is followed, and only plain files are read.

peephole=$apart/look

look_into_all() { # [sizes]
    for name in $(names); do look_into "$name" "${1-}"; done
}

# `sizes`: how much space a store takes as well; `machine`: only which machine used it last, for a boot that waits.
look_into() { # NAME [sizes|machine]
    if top=$(fact "$1" mounted) && [ -n "$top" ]; then
        look_around "$1" "${2-}"
    elif open_read_only "$1"; then
        top=$peephole
        look_around "$1" "${2-}"
        close_read_only "$1"
    fi
}

open_read_only() { # NAME: at the peephole
    case $(fact "$1" type) in
    ext[234]) options=noload kind=ext4 ;;
    xfs) options=norecovery,nouuid kind=xfs ;;
    btrfs) options=rescue=nologreplay kind=btrfs ;;
    '') return 1 ;;
    *)
        set_fact "$1" closed "a $(fact "$1" type) is not looked into"
        return 1
        ;;
    esac
    if [ -n "$(ls "/sys/class/block/$1/holders" 2>/dev/null)" ]; then
        set_fact "$1" closed "in use as a part of something else"
        return 1
    fi
    was_read_only=$(blockdev --getro "/dev/$1")
    mkdir -p "$peephole"
    if ! blockdev --setro "/dev/$1" 2>/dev/null; then
        set_fact "$1" closed "the device cannot be made read-only"
        return 1
    fi
    if ! mount -t $kind -o "ro,nosuid,nodev,noexec,$options" "/dev/$1" "$peephole" 2>/dev/null; then
        [ "$was_read_only" = 1 ] || blockdev --setrw "/dev/$1"
        set_fact "$1" closed "its $kind file system cannot be mounted: damaged, or in use"
        return 1
    fi
}

close_read_only() { # NAME
    umount "$peephole"
    [ "$was_read_only" = 1 ] || blockdev --setrw "/dev/$1"
}

look_around() { # NAME [sizes|machine]; $top
    ! has file etc/dom0-machine || set_fact "$1" machine "$(plain <"$top/etc/dom0-machine")"
    [ "$2" != machine ] || return 0
    # Where another Linux may have put its root, on btrfs; and where an Engine's store is: on the root, on a /var, alone.
    for root in '' @ @rootfs root; do
        [ -z "$root" ] || has directory "$root" || continue
        tell_system "$1" "$root"
        for path in var/lib/docker lib/docker .; do
            ! has directory "$root/$path" || tell_store "$1" "$root/$path" "${2-}"
        done
    done
}

has() { # file|directory PATH: below $top, with no symbolic link on the way
    checked=$top
    rest=$2/
    while [ -n "$rest" ]; do
        checked=$checked/${rest%%/*} rest=${rest#*/}
        [ ! -L "$checked" ] || return 1
    done
    case $1 in
    file) [ -f "$checked" ] ;;
    directory) [ -d "$checked" ] ;;
    esac
}

tell_system() { # NAME ROOT
    for path in usr/lib/os-release etc/os-release; do
        ! has file "$2/$path" || [ -n "$(fact "$1" system)" ] ||
            set_fact "$1" system "$(sed -n 's/^PRETTY_NAME="*\([^"]*\)"*$/\1/p' "$top/$2/$path" | plain)"
    done
    ! has file "$2/var/lib/dpkg/status" || [ -n "$(fact "$1" engine)" ] ||
        set_fact "$1" engine "$(awk '
            /^Package: (docker\.io|docker-ce)$/ { found = 1 }
            /^$/ { found = 0 }
            found && /^Version: / { sub(/^Version: ([0-9]+:)?/, ""); print; exit }' "$top/$2/var/lib/dpkg/status" | plain)"
}

tell_store() { # NAME PATH [sizes]
    kinds=$(store_kinds "$2")
    [ -n "$kinds" ] && [ -z "$(fact "$1" store)" ] || return 0
    set_fact "$1" store "$kinds"
    set_fact "$1" store_path "${2#/}"
    set_fact "$1" store_containers "$(has directory "$2/containers" && list "$2/containers" | wc -l)"
    set_fact "$1" store_images "$(count_images "$2")"
    if [ -n "$3" ] && [ "$top" = "$peephole" ] && kib=$(timeout 60 du -skx "$top/$2" 2>/dev/null | cut -f 1) && [ -n "$kib" ]; then
        set_fact "$1" store_bytes $((kib * 1024))
    fi
}

# The names of storage drivers, and `containerd` where containerd keeps the images.
store_kinds() { # PATH
    {
        ! has directory "$1/image" || for driver in $(list "$1/image"); do
            ! has directory "$1/image/$driver/imagedb" || echo "$driver"
        done
        ! has directory "$1/$(containerd_blobs)" || echo containerd
    } | plain_words
}

containerd_blobs() {
    echo containerd/daemon/io.containerd.content.v1.content/blobs/sha256
}

list() { # PATH
    ls -A "$top/$1" 2>/dev/null
}

plain_words() { # of lines
    tr '\n' ' ' | tr -cd 'a-z0-9 -' | cut -c 1-100 | sed 's/ *$//'
}

# The Engine's own lists; where containerd keeps images, their configurations are the short files that name layers.
count_images() { # PATH
    {
        ! has directory "$1/image" || for driver in $(list "$1/image"); do
            ! has directory "$1/image/$driver/imagedb/content/sha256" || list "$1/image/$driver/imagedb/content/sha256"
        done
        # shellcheck disable=SC2038 # a name with a space in it is no image's
        ! has directory "$1/$(containerd_blobs)" || find "$top/$1/$(containerd_blobs)" -type f -size -512 -exec \
            grep -l '"diff_ids"' {} + 2>/dev/null | xargs -r grep -L '"architecture":"unknown"' 2>/dev/null
    } | wc -l
}
