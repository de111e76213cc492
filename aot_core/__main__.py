"""`python -m aot_core` is `aot`."""

from aot_core.commands.cli import main

main()
