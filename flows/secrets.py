"""Prefect secret blocks, for configs that name them: `"prefect-block:secret/NAME"` (`aot_core.contracts.secrets`).

Only flows know Prefect. They read a block when its config is about to be used and hand its value on to their own stages
in an environment variable, where `reveal` finds it in any process; it is written nowhere.
"""

import os

from prefect.blocks.system import Secret

from aot_core.contracts.base import Frozen
from aot_core.contracts.secrets import SecretError, block_of, references_in, variable_of


def lend_blocks(config: Frozen) -> None:
    """Read every block that a config names. Raises SecretError for one that is not there, or is empty."""
    for reference in references_in(config.model_dump(mode="json")):
        block, variable = block_of(reference), variable_of(reference)
        if block is None or variable is None:
            continue
        try:
            value = Secret.load(block).get()  # pyright: ignore[reportAttributeAccessIssue]: no event loop runs here
        except ValueError as error:
            raise SecretError(
                f"{reference}: Prefect has no such block; make it on Prefect's page (Blocks, Secret), or with "
                f"`Secret(value=...).save({block!r})`"
            ) from error
        if not isinstance(value, str) or not value:
            raise SecretError(f"{reference}: the block holds no text; give it the value as a string")
        os.environ[variable] = value
