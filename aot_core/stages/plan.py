"""Where models that were registered before the engine had a package of its own look for `aot_core.engine.identity`."""

from aot_core.engine.identity import check_model

__all__ = ["check_model"]
