"""A stage's gallery: kept in its artifact and logged to the tracker."""

from PIL.Image import Image

from aot_core.contracts.summary import PICTURES_FOLDER
from aot_core.engine.context import StageContext


def keep_picture(context: StageContext, name: str, page: Image, logged: str | None = None) -> None:
    """Write a page into the artifact's pictures as `NAME.png`, and log it as `gallery/LOGGED.png`.

    Args:
        logged: the page's name in the tracker, where another stage may have one of the same `name`.
    """
    folder = context.output / PICTURES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    page.save(folder / f"{name}.png")
    context.tracker.log_image(f"gallery/{logged or name}.png", page)
