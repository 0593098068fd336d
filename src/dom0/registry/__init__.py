"""Registries of images, asked over a line that may be bad. It knows no Engine: what is got is files and values."""
