"""Forwards connections to wherever a service is now. It runs alone in its image, with what it imports."""
