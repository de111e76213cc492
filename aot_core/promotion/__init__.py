"""What moves the registry's alias: transaction, smoke test, notices, and the commands' bodies."""
