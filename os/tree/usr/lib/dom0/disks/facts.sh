# shellcheck shell=sh
# What is known of the disks: a file for each block device, `key=value` lines; and all of it as JSON.
#
#   device, bytes, removable, partition   as the kernel says
#   type, label, uuid, table              as blkid says, with everything but plain text written \xHH
#   blank, half_made, please_format       1, or not there
#   mounted                               where, if it is
#   closed                                why nobody looked into its file system
#   system, engine                        the Linux on it and the version of its Engine
#   machine                               on disks of ours: which machine used it last
#   store, store_path, store_containers, store_images, store_bytes    of a Docker Engine
#
# Values from disks are hostile. None holds a line break or a control character when it is written here.

run=/run/dom0/os
facts=$run/disks

fact() { # NAME KEY
    sed -n "s/^$2=//p" "$facts/$1" | head -n 1
}

set_fact() { # NAME KEY VALUE
    sed -i "/^$2=/d" "$facts/$1"
    printf '%s=%s\n' "$2" "$3" >>"$facts/$1"
}

names() {
    for file in "$facts"/*; do
        [ ! -f "$file" ] || echo "${file##*/}"
    done
}

is_known() { # NAME: hostile as words that a person types
    case $1 in '' | *[!A-Za-z0-9_-]*) return 1 ;; esac
    [ -f "$facts/$1" ]
}

with_fact() { # KEY VALUE: the names of the devices where it is so
    grep -lxF "$1=$2" "$facts"/* 2>/dev/null | sed 's|.*/||'
}

plain() { # of standard input the first line, without what a console or a reader of ours may stumble over
    head -c 4096 | tr -c '\n -~' '?' | head -n 1 | cut -c 1-200
}

# One that cannot be cut off: readers see the old document or the new one.
write_json() {
    {
        echo "[data]"
        cat "$run/data" 2>/dev/null
        echo "[problems]"
        cat "$run/disk.problems" 2>/dev/null
        for name in $(names); do
            echo "[device]"
            cat "$facts/$name"
        done
    } | awk -f /usr/lib/dom0/disks/json.awk >$run/disks.json.new
    mv $run/disks.json.new $run/disks.json
}
