"""A farm: machines that belong together, and the one place where it is decided which ones do. docs/farm.md.

`directory` is the farm on its server's disk (`settings`, `nodes`, `revisions`), `publish` brings images there, `pin` is
how its server is recognised, `serve` what the server answers, `join` what a machine does to become a node, and `follow`
what a node does. Nothing here starts a container or plans one.
"""
