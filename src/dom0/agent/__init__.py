"""The agent: `observe` what the Engine has, `reconcile` it with the desired state, keep `generations`."""
