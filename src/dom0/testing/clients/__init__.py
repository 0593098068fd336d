"""Libraries that drive an Engine, on its own socket and on a scoped one: `python -m dom0.testing.clients`.

They are run by hand: with what they bring they would be half of the test dependencies.
"""
