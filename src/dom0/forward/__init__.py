"""Forwards TCP and UDP by a table, in the kernel or by a relay. Knows network namespaces and no containers."""
