"""Configs of published and built-in runs: `get_config(arg)` in each file."""
