# shellcheck shell=sh
# Stores of another Linux's Docker Engine. Their disk is never written to, but with `use`: for the other policies memory
# lies over it, block by block, and takes what an Engine writes there.

copy=$apart/copy
engine_deadline=600 # seconds until an Engine answers; in the background, on a machine that may be slow and busy

# Makes /dev/mapper/dom0-PLACE, a device like NAME's that can be written to. An overlay of directories would not do: no
# Engine keeps layers on one.
lay_memory_over() { # NAME PLACE
    kib=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 2))
    modprobe -q dm_snapshot
    mkdir -p "$apart/$2"
    blockdev --setro "/dev/$1" &&
        mount -t tmpfs -o mode=700,size=${kib}k tmpfs "$apart/$2" &&
        truncate -s ${kib}K "$apart/$2/blocks" &&
        loop=$(losetup -f) &&
        losetup "$loop" "$apart/$2/blocks" &&
        echo "0 $(sectors "$1") snapshot /dev/$1 $loop N 8" |
        DM_DISABLE_UDEV=1 dmsetup create "dom0-$2" >/dev/null
}

take_memory_away() { # NAME PLACE
    DM_DISABLE_UDEV=1 dmsetup remove "dom0-$2"
    loop=$(losetup -a | sed -n "s|^\([^:]*\): .*$apart/$2/blocks.*|\1|p")
    [ -z "$loop" ] || losetup -d "$loop"
    umount "$apart/$2"
    blockdev --setrw "/dev/$1"
} 2>/dev/null

adopt_by_hand() { # DEVICE POLICY
    alone copy
    alone disk
    probe_all
    adopt_known "${1#/dev/}" "$1" "$2"
}

adopt_known() { # NAME DEVICE POLICY
    is_known "$1" || refuse "$2: there is no such disk" "\`disk ls\` lists them"
    look_into "$1"
    obstacle=$(obstacle_to_adoption "$1" "$3")
    [ -z "$obstacle" ] || refuse "$2: cannot be adopted: $obstacle" "\`disk ls\` says what is on it"
    case $3 in
    copy-images) (copy_images "$1") ;;
    use | use-readonly)
        echo "$2: can be adopted. It is at the next boot, if the boot contract says so: in dom0/config on the boot medium"
        printf 'data=uuid=%s\nadopt=%s\n' "$(fact "$1" uuid)" "$3"
        ;;
    *) refuse "$3: is no policy" "use, use-readonly, copy-images" ;;
    esac
}

# In the background, after the boot. Each disk once: what somebody deletes afterwards stays deleted.
adopt_by_contract() {
    [ "$adopt" = copy-images ] || return 0
    alone copy
    alone disk
    for name in $(foreign_stores); do
        done=/var/lib/dom0/adopted/$(fact "$name" uuid)
        [ ! -e "$done" ] || continue
        obstacle=$(obstacle_to_adoption "$name" copy-images)
        if [ -n "$obstacle" ]; then
            warn "the images of /dev/$name cannot be copied: $obstacle"
        elif (copy_images "$name") >"$run/copy.log" 2>&1; then
            mkdir -p "${done%/*}" && mv "$run/copy.log" "$done"
            say "the images of /dev/$name are copied"
        else
            warn "the images of /dev/$name could not be copied: $(tail -n 2 "$run/copy.log" | tr '\n' ' ' | plain)"
        fi
        alone disk
    done
    write_json
}

# By a second Engine on the other's store, which has none of its containers, for the time of the copying. In a process of
# its own, at whose end it ends as well.
copy_images() { # NAME
    foreign=$1
    [ "$(sed -n 's/^kind=//p' $run/data)" != memory ] ||
        refuse "/dev/$1: there is no data disk that its images could be copied to" "\`disk format\` makes one"
    await_engine /run/docker.sock || refuse "the Docker Engine does not answer" "docker version"
    end_second_engine "$1" # of one that was killed
    trap 'end_second_engine "$foreign"' EXIT
    start_second_engine "$1" || refuse "/dev/$1: no Engine starts on its store" "$(tail -n 3 "$copy/log" 2>/dev/null)"
    let_others disk # which may take its time
    images=$(docker -H "unix://$copy/socket" image ls --format '{{.Repository}}:{{.Tag}}') ||
        refuse "/dev/$1: the Engine on its store does not list its images" "$(tail -n 3 "$copy/log")"
    echo "$images" | sed '/^$/d; /<none>/d' | sort | copy_each
}

# One that cannot be copied keeps no other from it.
copy_each() { # names on standard input
    failed=
    while read -r image; do
        copy_image "$image" || failed="$failed $image"
    done
    [ -z "$failed" ] || refuse "not copied:$failed" "The others are here, and are left out when it is tried again."
}

start_second_engine() { # NAME
    mkdir -p "$copy/disk"
    lay_memory_over "$1" copied && mount_foreign /dev/mapper/dom0-copied "$copy/disk" "$(fact "$1" type)" || return 1
    store=$copy/disk/$(fact "$1" store_path)
    for part in containers swarm; do
        rm -rf "${store:?}/$part.away"
        [ ! -e "$store/$part" ] || mv "$store/$part" "$store/$part.away"
    done
    case " $(fact "$1" store) " in
    *' overlay2 '*) echo '{"storage-driver": "overlay2"}' ;;
    *) echo '{"features": {"containerd-snapshotter": true}}' ;;
    esac >"$copy/settings"
    unshare -n dockerd --config-file "$copy/settings" --data-root "$store" --exec-root "$copy/run" \
        --pidfile "$copy/pid" --host "unix://$copy/socket" --bridge none --iptables=false --ip6tables=false \
        >"$copy/log" 2>&1 &
    await_engine "$copy/socket"
}

await_engine() { # SOCKET
    deadline=$((engine_deadline + $(seconds)))
    until docker -H "unix://$1" version >/dev/null 2>&1; do
        [ "$(seconds)" -lt $deadline ] || return 1
        sleep 0.5
    done
}

# Nothing that is here is replaced.
copy_image() { # IMAGE
    if docker image inspect "$1" >/dev/null 2>&1; then
        echo "$1: is here already"
        return
    fi
    docker -H "unix://$copy/socket" save "$1" | docker load --quiet
    docker image inspect "$1" >/dev/null 2>&1 # whether it was saved is not known otherwise
}

end_second_engine() { # NAME
    if engine=$(cat "$copy/pid" 2>/dev/null); then
        kill "$engine"
        while [ -d "/proc/$engine" ]; do sleep 0.1; done
    fi
    umount "$copy/disk"
    rm -f "$copy/pid"
    take_memory_away "$1" copied
} 2>/dev/null
