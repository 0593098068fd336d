"""How a base OS is built from Debian packages, put on boot media, and run in a virtual machine of QEMU."""
