"""The host below the root container: its base OS, its boot, its disks. Nothing here runs inside of the base OS."""
