"""Launchers: how a stage gets a process."""
