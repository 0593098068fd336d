"""The host below the root container: its base OS, its boot, its disks."""
