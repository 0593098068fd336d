# Installs the packages that the host has downloaded.
set -eu
. /dev/build/steps/settle.sh
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends /dev/build/packages/*.deb
rm -f /etc/ssh/ssh_host_* # every machine makes its own
# Debian leaves byte code of the library to its package python3, which brings more than is needed here.
rm -rf /usr/lib/python3.*/pydoc_data /usr/lib/python3.*/turtle* /usr/lib/python3.*/lib-dynload/_test*
python3 -IS -m compileall -q --invalidation-mode timestamp /usr/lib/python3.*
settle
