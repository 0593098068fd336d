"""The running machine below the root container: its boot, its disks, its base OS and the update of that.

Nothing here runs inside of the base OS, and nothing needs what builds it.
"""
