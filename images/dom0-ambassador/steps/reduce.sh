# Runs in the new root, of which only the files of packages are there. Leaves what an ambassador uses.
set -eu
busybox rm -f /usr/bin/tar /usr/bin/mawk # as busybox has them
busybox --install -s /usr/bin
cd /usr

# For installing packages, which nobody does here. Licences stay.
rm -rf /reduce.sh bin/dpkg* bin/debconf* bin/py3* bin/update-alternatives bin/procan bin/filan sbin/*-shell* sbin/dpkg* sbin/installkernel \
    share/debconf share/dpkg share/perl5 share/python3 share/pixmaps share/polkit-1 share/lintian share/bug share/bash-completion \
    share/info share/man share/locale share/doc-base share/applications share/base-files share/menu lib/dpkg lib/tmpfiles.d \
    /etc/alternatives /etc/cron* /etc/update-motd.d /var/log/* /boot /home /media /mnt /opt /srv
find share/doc -type f ! -name copyright -exec rm -f {} +
find share/doc -depth -type d -exec rmdir {} \; 2>/dev/null || :

# Of the C library: other character sets. Of the packages' relations: what is needed only by what is not used.
lib=$(echo lib/*-linux-gnu*)
rm -rf "$lib"/gconv "$lib"/audit "$lib"/perl-base "$lib"/ossl-modules "$lib"/engines-3 \
    "$lib"/libmvec.so* "$lib"/libdb-5* "$lib"/libsqlite3* "$lib"/libpanelw* "$lib"/libmenuw* "$lib"/libformw* "$lib"/libncursesw* share/zoneinfo

# Of Python: what talks to screens, people, mail servers, databases, other processes of Python.
cd /usr/lib/python3.*
rm -rf _pyrepl __phello__ config-* curses dbm ensurepip idlelib lib2to3 multiprocessing pathlib/_local_test pydoc* sqlite3 test tkinter \
    turtle* unittest venv wsgiref/simple_server_test xml xmlrpc doctest.py imaplib.py mailbox.py poplib.py smtplib.py ftplib.py
cd lib-dynload
rm -f _codecs_* _curses* _dbm* _gdbm* _sqlite3* _test* _xx* xx* _multiprocessing* _tkinter* readline*

# Programs of people's shells that a person may call, as busybox has them; names of users for those that print them.
echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
echo 'root:x:0:' >/etc/group
mkdir -p /var/lib/dom0-ambassador /run/dom0-ambassador
