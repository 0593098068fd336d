"""Forwards connections to wherever a service is now. Alone in the image dom0-ambassador: nothing above `run` is there."""
