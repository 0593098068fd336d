# Puts the agent in: its Python packages, our files, the user of the machine.
set -eu
. /dev/build/steps/settle.sh
useradd --create-home --uid 1000 --user-group --shell /bin/bash --password '*' dom0
mkdir -p /usr/lib/dom0/python /etc/dom0/compose.d /etc/ssh/authorized_keys.d
cp -R /dev/build/tree/. /
cp -R /dev/build/python/. /dev/build/agent/. /usr/lib/dom0/python
# Entry points of the wheels, sources of their extensions, and what rich would colour program text with.
rm -rf /usr/lib/dom0/python/bin /usr/lib/dom0/python/pygments*
find /usr/lib/dom0/python -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete
chmod -R u=rwX,go=rX /usr/lib/dom0
chmod 755 /usr/bin/dom0 /usr/lib/dom0/start-sshd # a wheel keeps it, a careless copy does not
# An image does not change below the agent, so the byte code is not compared with its source at start.
python3 -IS -m compileall -q --invalidation-mode unchecked-hash /usr/lib/dom0/python
settle
