"""Backups of volumes with restic, the home's among them."""
