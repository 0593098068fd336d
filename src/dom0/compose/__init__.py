"""The Compose language: files in, one resolved Project out."""
