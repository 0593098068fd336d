"""Attempts to get out of a scoped Engine socket, and an oracle that reads the Engine behind it and the host.

`attempts` are tried one by one on the socket of any proxy; `world` lays out what they are after and says what they got.
"""
