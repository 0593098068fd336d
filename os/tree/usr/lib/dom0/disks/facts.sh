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
# What is mounted for a moment is mounted below this. Not below /run/dom0: containers are given that with all that is
# mounted in it, and one that starts meanwhile would hold it.
apart=/run/disks

# Without another program, as much of this: it is asked often, and a boot waits for it.
fact() { # NAME KEY
    while IFS= read -r line; do
        case $line in "$2="*)
            printf '%s\n' "${line#*=}"
            return
            ;;
        esac
    done <"$facts/$1"
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
    (cd "$facts" && grep -lxF "$1=$2" -- * 2>/dev/null)
}

plain() { # of standard input the first line, without what a console or a reader of ours may stumble over
    head -c 4096 | tr -c '\n -~' '?' | head -n 1 | cut -c 1-200
}

# One that cannot be cut off: readers see the old document or the new one.
write_json() {
    set --
    for file in "$facts"/*; do
        [ ! -f "$file" ] || set -- "$@" "$file"
    done
    touch $run/data $run/disk.problems
    awk -f /usr/lib/dom0/disks/json.awk kind=data $run/data kind=problems $run/disk.problems kind=device "$@" \
        >$run/disks.json.new
    mv $run/disks.json.new $run/disks.json
}
