# Installs the packages that the host has downloaded.
set -eu
. /mnt/steps/settle.sh
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends /mnt/packages/*.deb
rm -f /etc/ssh/ssh_host_* # every machine makes its own
settle
