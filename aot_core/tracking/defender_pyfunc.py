"""The registered Defender as MLflow loads it: models-from-code, this file is copied beside the weights.

A table with an image and a question a row goes in, a table with the answers comes out. This file is run by
MLflow when the model is loaded, never imported by the project; it needs `aot_core` installed, and imports
what loads torch only when the model is really loaded.
"""

import base64
import binascii
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from PIL import Image

from aot_core.contracts.scene import LETTERS, Query, Question

_OPTION = re.compile(r"^\s*([A-H])[.):]\s*(.+?)\s*$")
_CLOSING = re.compile(r"^\s*(Answer with|Please answer)\b.*boxed", re.IGNORECASE)
_LONGEST_PATH = 4096
_DATA_URI = re.compile(r"\s*data:[^,]*;base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")


class DefenderModel(PythonModel):
    """Answers multiple-choice questions about images, greedily."""

    def load_context(self, context: Any) -> None:
        """Load the weights: a full model from the artifact, or the base by name and the adapter from the
        artifact."""
        from aot_core.defender.answering import Defender
        from aot_core.engine.identity import check_model

        config = context.model_config
        weights = Path(context.artifacts["weights"])
        base, adapter = (str(weights), None) if config["kind"] == "model" else (config["base"], weights)
        if adapter is not None:
            check_model(base, config.get("base_sha256", ""))
        tokens = int(config.get("max_new_tokens", 16))  # versions registered earlier do not say
        self._defender = Defender.load(base, adapter, config["device"], config["dtype"], max_new_tokens=tokens)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]: MLflow looks at which arguments it takes
        self, model_input: pd.DataFrame
    ) -> pd.DataFrame:
        """Answer every row.

        Args:
            model_input: `image` (a file's path, or the file's bytes as base64 or a data URI), `question` (with its
                options a line each, `A. yes`; or alone), and, where the question stands alone, `options` (a JSON list
                of texts).

        Returns:
            A row a row: `letter` ("" where the Defender named none, or the length limit cut it off), `answer` (that
            option's text), `completion`.

        Raises:
            ValueError: naming the row, the field and the fix.
        """
        from aot_core.answers import letter_of

        rows = _rows(model_input)
        questions = [_question(row, index) for index, row in enumerate(rows)]
        images = [_image(str(row["image"]), index) for index, row in enumerate(rows)]
        answers = self._defender.answer(images, questions, samples=1, temperature=0.0, seed=0)
        table: list[dict[str, str]] = []
        for question, (completion,) in zip(questions, answers, strict=True):
            letter = letter_of(completion, question.options) or ""
            text = question.options[LETTERS.index(letter)] if letter else ""
            table.append({"letter": letter, "answer": text, "completion": str(completion)})
        return pd.DataFrame(table, columns=["letter", "answer", "completion"])


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """The table's rows. MLflow hands a dict of lists of texts on as one row of lists: that is taken apart."""
    listed = [name for name in table.columns if any(isinstance(value, list) for value in table[name])]
    if listed:
        table = table.explode(listed, ignore_index=True)
    return table.to_dict("records")


def _question(row: dict[Any, Any], index: int) -> Question:
    text, options = str(row["question"]), _listed_options(row.get("options"), index)
    if options is None:
        lines = [line for line in text.splitlines() if line.strip() and not _CLOSING.match(line)]
        found = [match for line in lines if (match := _OPTION.match(line))]
        options = [match[2] for match in found]
        text = "\n".join(line for line in lines if not _OPTION.match(line))
        if "".join(match[1] for match in found) != LETTERS[: len(found)]:
            raise ValueError(f"row {index}: question: its options must be lettered A, B, C ... in order")
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(
            f"row {index}: question has {len(options)} options; give 2 to {len(LETTERS)}, a line each in the "
            "question (`A. yes`), or as a JSON list in `options`"
        )
    # Nobody knows the answer here: a Question must name one, and nothing on the way to the Defender reads it.
    query = Query(kind="existence", target={})
    return Question(query=query, text=text, options=tuple(options), answer=LETTERS[0])


def _listed_options(value: Any, index: int) -> list[str] | None:
    """The `options` column's list; None where it is not given."""
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        options = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f'row {index}: options: not a JSON list ({error}); give ["yes", "no"]') from error
    if not isinstance(options, list):
        raise ValueError(f'row {index}: options: {value!r} is not a list; give ["yes", "no"]')
    return [str(option) for option in options]


def _image(value: str, index: int) -> Image.Image:
    from aot_core.worlds.images import DataError, decode_image, open_image

    if _names_a_file(value):
        return open_image(Path(value).parent, Path(value).name)
    try:
        return decode_image(_decoded(value, index), "base64 text")
    except DataError as error:
        raise ValueError(f"row {index}: image: the base64 text is no readable image ({error})") from error


def _names_a_file(value: str) -> bool:
    """Base64 is asked too: it may hold slashes, with more between two of them than a file's name may have."""
    try:
        return len(value) < _LONGEST_PATH and Path(value).is_file()
    except (OSError, ValueError):  # a name that is too long, a NUL
        return False


def _decoded(value: str, index: int) -> bytes:
    """The bytes of base64 in any usual form: RFC 4648's two alphabets, in lines (RFC 2045), without its padding, as a
    data URI with parameters (RFC 2397)."""
    if re.match(r"\s*data:", value, re.IGNORECASE) and not _DATA_URI.match(value):
        raise ValueError(f"row {index}: image: {value[:80]!r}: a data URI must begin data:image/png;base64,")
    text = "".join(_DATA_URI.sub("", value).split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(
            f"row {index}: image: {value[:80]!r} is neither an existing file nor base64 ({error}); give one of them"
        ) from error


set_model(DefenderModel())
