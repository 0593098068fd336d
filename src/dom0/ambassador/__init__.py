"""Forwards connections to wherever a service is now. Alone in its image: nothing above `run` is there."""
