"""Measurements of dom0 beside what a person would take instead, in one run on one Engine. No test depends on them."""
