"""The Docker Engine as dom0 sees it: `protocol` (calls), `values` (answers), `docker` (the adapter)."""
