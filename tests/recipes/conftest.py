"""What the recipes' tests share with the Defender's."""

from tests.defender.conftest import asked, dataset, untrained

__all__ = ["asked", "dataset", "untrained"]
