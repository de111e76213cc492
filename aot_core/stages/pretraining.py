"""The address that the cards of the shipped models name; `python -m aot_core.recipes` is where it has moved.

The cards are part of the models' hashes: changing them would invalidate every stored stage.
"""

from aot_core.recipes.__main__ import main

if __name__ == "__main__":
    main()
