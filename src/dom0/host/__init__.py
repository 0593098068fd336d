"""The running machine below the root container: its boot, its disks, its base OS and updates of that.

Nothing here runs in the base OS, or needs what builds it.
"""
