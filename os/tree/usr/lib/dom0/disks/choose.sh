# shellcheck shell=sh
# Which disk is to hold the data of this machine. Decides from what is known of the disks and from the boot contract, and
# changes nothing. What comes of it:
#
#   choice   own, boot2docker, adopt, format, or memory
#   chosen   name of the device, empty for memory
#   reason   why
#   warning  what somebody should know besides, or empty
#
# Never guesses: where two disks may be meant, it is neither.

least_sectors=131072 # 64 MiB; below it are the boot areas of flash memories, which are blank as well

choose() {
    choice=memory chosen='' reason='' warning=''
    case $wanted in
    ram) reason="the boot contract says data=ram" ;;
    auto) choose_by_rule ;;
    *) choose_named "$(matching "$wanted")" ;;
    esac
}

choose_by_rule() {
    choose_label dom0-data own || choose_label boot2docker-data boot2docker || choose_store || choose_blank ||
        reason="no disk is labelled dom0-data$(other_ways)"
}

take() { # CHOICE NAME REASON
    choice=$1 chosen=$2 reason=$3
}

choose_label() { # LABEL CHOICE
    candidates=$(with_fact label "$1" | mountable)
    [ -n "$candidates" ] || return 1
    if ! is_one "$candidates"; then
        choose_by_machine "$2" "labelled $1" "$candidates"
    elif is_anothers "$candidates"; then
        take "$2" "$candidates" "its label is $1; another machine used it last, and no disk of this one is here"
        warning="/dev/$candidates is taken although another machine used it last: $(fact "$candidates" machine)"
    else
        take "$2" "$candidates" "its label is $1"
    fi
}

# Another machine used it last. Not known where one of the two has no name.
is_anothers() { # NAME
    mine=$(machine_id)
    [ "$mine" != unknown ] || return 1
    [ -n "$(fact "$1" machine)" ] || look_into "$1" machine
    case $(fact "$1" machine) in '' | unknown | "$mine") return 1 ;; esac
}

# Several disks of ours: the one that this machine used last. A copy of a disk says the same as the disk, and another
# machine's says something else.
choose_by_machine() { # CHOICE WHAT NAMES
    for name in $3; do look_into "$name" machine; done
    mine=$(machine_id)
    candidates=$(for name in $3; do [ "$(fact "$name" machine)" != "$mine" ] || echo "$name"; done)
    if [ "$mine" != unknown ] && is_one "$candidates"; then
        take "$1" "$candidates" "of several disks that are $2 it is the one that this machine used last"
        warning="several disks are $2:$(told "$3"); taken: /dev/$candidates, which this machine used last"
    else
        reason="several disks are $2:$(told "$3"); the boot contract can name one: data=uuid=..."
    fi
}

machine_id() {
    for file in /sys/class/dmi/id/product_uuid /sys/firmware/devicetree/base/serial-number; do
        serial=
        [ ! -r $file ] || read -r serial <$file
        case $serial in
        *[!A-Za-z0-9-]*) ;;
        *[1-9A-Ea-e]*)
            echo "$serial"
            return
            ;;
        esac
    done
    echo unknown
}

matching() { # WANTED: label=…, uuid=…, /dev/…
    case $1 in
    label=*) with_fact label "${1#label=}" ;;
    uuid=*) (cd "$facts" && grep -lixF "$1" -- * 2>/dev/null) ;;
    /dev/*) with_fact device "$1" ;;
    esac
}

choose_named() { # NAMES
    if [ -z "$1" ]; then
        reason="the boot contract says data=$wanted, and there is no such disk"
    elif ! is_one "$1"; then
        choose_by_machine own "$wanted" "$1"
    else
        choose_from_one "$1" "the boot contract says data=$wanted"
    fi
}

choose_from_one() { # NAME REASON
    [ -n "$(fact "$1" blank)$(fact "$1" half_made)" ] || look_into "$1"
    if is_free "$1"; then
        if [ "$format" = blank ]; then
            take format "$1" "$2 format=blank"
        else
            reason="$2, and /dev/$1 is blank; format=blank lets it be formatted"
        fi
    elif [ -z "$(echo "$1" | mountable)" ]; then
        reason="$2, and /dev/$1 has no file system that data can be on$(said_type "$1")"
    elif [ "$(fact "$1" label)" = dom0-data ] || [ -n "$(fact "$1" machine)" ] || is_empty_of_others "$1"; then
        take own "$1" "$2"
    elif [ "$(fact "$1" label)" = boot2docker-data ]; then
        take boot2docker "$1" "$2"
    elif [ -n "$(fact "$1" closed)" ]; then
        reason="$2, and of /dev/$1 $(fact "$1" closed)"
    else
        choose_adoption "$1"
    fi
}

is_empty_of_others() { # NAME
    [ -z "$(fact "$1" store)$(fact "$1" system)$(fact "$1" closed)" ]
}

said_type() { # NAME
    type=$(fact "$1" type)$(fact "$1" table)
    [ -z "$type" ] || echo ": it holds $type"
}

# Another Linux's Engine, where the contract says that it may be used.
choose_store() {
    case $adopt in use | use-readonly) ;; *) return 1 ;; esac
    candidates=$(foreign_stores)
    [ -n "$candidates" ] || return 1
    if is_one "$candidates"; then
        choose_adoption "$candidates"
    else
        reason="several disks hold a Docker store:$(told "$candidates"); the boot contract can name one: data=uuid=..."
    fi
}

foreign_stores() {
    for name in $(names | mountable); do
        look_into "$name"
        case $(fact "$name" label) in dom0-data | boot2docker-data) continue ;; esac
        [ -z "$(fact "$name" store)" ] || [ -n "$(fact "$name" machine)" ] || echo "$name"
    done
}

choose_adoption() { # NAME
    case $adopt in
    use | use-readonly)
        obstacle=$(obstacle_to_adoption "$1" "$adopt")
        if [ -z "$obstacle" ]; then
            take adopt "$1" "the boot contract says adopt=$adopt"
        else
            reason="/dev/$1 cannot be adopted: $obstacle"
        fi
        ;;
    *) reason="/dev/$1 belongs to another Linux; adopt=use or adopt=use-readonly in the boot contract lets it be used" ;;
    esac
}

# Why the Engine of this base OS cannot work with a store of another one; nothing if it can.
obstacle_to_adoption() { # NAME POLICY
    store=$(fact "$1" store)
    theirs=$(fact "$1" engine)
    if [ -z "$store" ]; then
        echo "it has no Docker store$(said_closed "$1")"
    elif ! echo " $store " | grep -Eq ' (overlay2|containerd) '; then
        echo "its storage driver is $store, and this Engine has overlay2 and containerd's"
    elif [ -n "$theirs" ] && is_newer "$theirs" "$(engine_version)"; then
        echo "its Engine is $theirs, newer than the one here, $(engine_version)"
    elif [ "$2" = use ] && [ "$(fact "$1" store_path)" = . ]; then
        echo "its file system is nothing but a store, without a place for dom0's own; use-readonly and copy-images work"
    fi
}

said_closed() { # NAME
    closed=$(fact "$1" closed)
    [ -z "$closed" ] || echo ": $closed"
}

engine_version() {
    dockerd --version 2>/dev/null | sed -n 's/^Docker version \([^,]*\),.*/\1/p'
}

is_newer() { # VERSION THAN: by the first two numbers
    [ -n "$2" ] && echo "$1 $2" | awk '{ split($1, a, /[^0-9]+/); split($2, b, /[^0-9]+/)
        exit !(a[1] + 0 > b[1] + 0 || (a[1] + 0 == b[1] + 0 && a[2] + 0 > b[2] + 0)) }'
}

choose_blank() {
    [ "$format" = blank ] || return 1
    candidates=$(for name in $(names); do
        ! is_free "$name" || [ -n "$(fact "$name" partition)$(fact "$name" removable)" ] || echo "$name"
    done)
    [ -n "$candidates" ] || return 1
    if is_one "$candidates"; then
        take format "$candidates" "it is blank, and the boot contract says format=blank"
    else
        reason="several disks are blank:$(told "$candidates"); the boot contract can name one: data=/dev/..."
    fi
}

is_free() { # NAME: may be formatted, given consent
    [ -n "$(fact "$1" blank)$(fact "$1" half_made)" ] && [ "$(fact "$1" bytes)" -ge $((least_sectors * 512)) ]
}

other_ways() {
    if [ "$adopt" = copy-images ]; then
        echo "; copy-images needs one"
    elif [ -n "$(with_fact blank 1)" ]; then
        echo "; one is blank: format=blank in the boot contract, or \`disk format\` at the console"
    fi
}

mountable() { # names on standard input: those with a file system that data can be on
    while read -r name; do
        case $(fact "$name" type) in ext[234] | xfs | btrfs) echo "$name" ;; esac
    done
}

is_one() { # NAMES
    # shellcheck disable=SC2086 # these are words
    set -- $1
    [ $# = 1 ]
}

told() { # NAMES
    for name in $1; do printf ' /dev/%s (uuid %s)' "$name" "$(fact "$name" uuid)"; done
}
