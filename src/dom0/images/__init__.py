"""The image chain: what a machine is started from."""
