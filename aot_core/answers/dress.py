r"""Undressing text: the same words without LaTeX, Markdown, tags and typographic variants."""

import re
import unicodedata

_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathtt|bm|boldsymbol|pmb|operatorname|"
    r"mbox|emph|underline|bf|rm|it|tt|sf)\b\s*\{([^{}]*)\}"
)
_BRACED_SWITCH = re.compile(r"\{\\(?:bf|rm|it|tt|sf|bfseries|rmfamily)\b\s*([^{}]*)\}")
_SPACE = re.compile(r"\\[,;:! ]|\\q?quad\b|\\left\b|\\right\b|\\[()\[\]]|\$|&nbsp;|(?<=[^\W_])~(?=\S)")
_MARKDOWN = re.compile(r"\*{1,3}|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{1,3}(?!\w)|`+|(?m:^\s*#{1,6}\s+)|(?m:^\s*>\s+)")
_TAG = re.compile(r"</?(?:b|strong|i|em|u|code|span|p|mark)(?:\s[^<>]*)?>|<br\s*/?>", re.IGNORECASE)
_QUOTES = str.maketrans({**dict.fromkeys("“”„«»「」『』", '"'), **dict.fromkeys("‘’", "'"), **dict.fromkeys("–—", "-"),
                         **dict.fromkeys("【〔", "["), **dict.fromkeys("】〕", "]")})  # fmt: skip
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)")


def undress(text: str) -> str:
    r"""The text without what dresses it: `\text{B}`, `**B**`, `$B$`, `<b>B</b>`, `"Ｂ"` all become B (or "B")."""
    plain = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    plain = _TAG.sub("", plain)
    while (inner := _BRACED_SWITCH.sub(r"\1", _COMMAND.sub(r"\1", plain))) != plain:
        plain = inner
    return _MARKDOWN.sub("", _SPACE.sub(" ", plain))


def folded(text: str) -> str:
    """What two spellings of one text have in common: undressed, without case, outer punctuation and article."""
    plain = " ".join(undress(text).casefold().split()).strip(" .,:;!?\"'()[]{}")
    return _ARTICLE.sub("", plain)
