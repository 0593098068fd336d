# Sourced first by each step. `settle`, called last, drops what differs from run to run and gives everything that was
# written meanwhile the time of the recipe, so that the same input makes the same layer.
umask 022
touch /tmp/begun

settle() {
    rm -rf /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/* /etc/*- /root/.cache
    find / -xdev \( -path /proc -o -path /sys -o -path /dev \) -prune -o -newer /tmp/begun \
        -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    rm /tmp/begun
    touch --date="@$SOURCE_DATE_EPOCH" /tmp
}
