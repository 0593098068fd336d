# Puts in the wheels, dom0's code and byte code of all of it.
set -eu
umask 022
begun=/dev/begun # a file system of the build; nothing below us is newer than it says
touch -d "@$SOURCE_DATE_EPOCH" $begun
mkdir -p /usr/lib/dom0/python
cp -R /dev/build/tree/. /
cp -R /dev/build/python/. /dev/build/agent/. /usr/lib/dom0/python
rm -rf /usr/lib/dom0/python/bin
find /usr/lib/dom0/python -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.c' -o -name '*.h' \) -exec rm -f {} +
chmod -R u=rwX,go=rX /usr/lib/dom0
chmod 755 /usr/bin/dom0-ambassador /usr/lib/dom0/hold-ambassador /usr/lib/dom0/carry # a wheel keeps it, a careless copy does not
# An image does not change below the program, so the byte code is not compared with its source at start.
python3 -IS -m compileall -q --invalidation-mode unchecked-hash /usr/lib/dom0/python /usr/lib/python3.*
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /etc/hosts -o -path /etc/resolv.conf \) -prune -o \
    -newer $begun -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
rm $begun
