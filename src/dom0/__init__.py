"""dom0: your whole machine is one container image."""

__version__ = "0.1.0"
