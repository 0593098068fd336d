"""The test kit: real Engines in namespaces of their own, fakes, builders. Nothing that is shipped imports it."""
