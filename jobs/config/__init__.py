"""Job files as tables: read from TOML, changed by `--set`, turned into frozen dataclasses."""
