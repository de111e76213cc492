"""The words around an answer: what states one, denies one, takes one back or leaves it open. All match undressed text.

Languages: those in which multilingual models were seen to answer: English, German, French, Spanish, Portuguese,
Italian, Dutch, Polish, Turkish, Russian, Vietnamese, Indonesian, Chinese, Japanese, Korean, Arabic, Hindi.
"""

import re

DENIED = "\N{ERASE TO THE LEFT}"
"""Stands where a denied letter or text stood."""

_FLAGS = re.IGNORECASE
_ADVERB = (
    r"(?:most\s+likely|probably|likely|clearly|definitely|obviously|certainly|indeed|therefore|thus|hence|simply|"
    r"actually|really|now|then|still|of\s+course|in\s+fact|also|surely|undoubtedly|presumably)"
)
_LINK = r"(?:is|are|was|'s|would\s+be|should\s+be|must\s+be|will\s+be|has\s+to\s+be|can\s+only\s+be|becomes?)"
_FILLER = (
    rf"(?:{_ADVERB}|the\s+(?:(?:correct|right|best|final)\s+)?(?:option|choice|letter|answer|one)|option|choice|letter|"
    r"answer|number|labell?ed|marked|with|for|"
    r"la\s+(?:opci[oó]n|letra|r[eé]ponse|lettre|lettera)|l'option|opci[oó]n|letra|op[cç][aã]o|a\s+(?:letra|alternativa|"
    r"op[cç][aã]o)|alternativa|lettre|lettera|opzione|die|der|das|la|el|le|il|o|(?-i:a(?=\s+\(?[A-Z]\b))|Option|Antwort|"
    r"Buchstabe|odpowied[zź]|optie|вариант|буква|选项|選項|項目|选择|選択肢|là|adalah)"
)
BUT = re.compile(
    rf"(?:(?:(?:not|nicht|pas|no\s+es|não\s+é|non\s+è|niet|не)\s+)|不是)?[(\"']*{DENIED}+[)\"']*(?:\s+{DENIED}+)*[,;]?\s*"
    r"(?:but|rather|it\s+is|it's|instead|sondern|mais|sino|es|mas|ma|est|é|è|maar|а|而是|是)?\s*",
    _FLAGS,
)
"""What is denied before the answer: "not A but"."""
BEFORE_ANSWER = re.compile(rf"(?:[\s:,=-]*{_FILLER}\b)*[\s:=|\">-]*", _FLAGS)
"""Fillers between what states an answer and the answer: "most likely option"."""

_NOUN = r"(?:answer|option|choice|response|solution|pick|guess|selection|conclusion|letter)"
STATES = re.compile(
    "|".join(
        [
            # "the answer (to this question) is", "answer:", "Answer B", and no "answer choices"
            rf"\b{_NOUN}\b(?=[^.?!\n:]{{0,60}}?\s(?:{_LINK})\b)[^.?!\n:]{{0,60}}?\s{_LINK}\b(?!\s+not\s+only)",
            rf"\b{_NOUN}'s\b",
            rf"\b(?:{_NOUN}|ans)[\"'\])]*(?:\s+{_ADVERB})?\s*(?::|=|\||-+>|→|⇒|\s-\s)",
            r"\[answer\]|\bans\.|(?:^|(?<=[.!\n]))\s*correct\s*:",
            rf"\b(?:right|correct|best)\s+one\s+{_LINK}\b",
            r"\b(?:final|my|correct|best|right)\s+answer\b(?=\s+\(?(?-i:[A-Z])\b)",
            r"(?:^|(?<=[.!\n]))\s*answer\b(?=\s+\(?(?-i:[A-Z])\b)",
            # "I choose", "I'd go with"
            r"\b(?:I|we|you)(?:'d|'ll|'m|\s+should|\s+can|\s+would|\s+will|\s+have\s+to|\s+must|\s+am)?(?:\s+(?:rather|therefore|thus|finally))?\s+"
            r"(?:choose|chose|pick|picked|select|selected|say|answer|opt\s+for|vote\s+for|settle\s+on|settled\s+on|"
            r"go(?:ing)?\s+(?:with|for)|went\s+with|conclude)\b",
            r"(?:^|(?<=[.!\n])|\b(?:so|thus|therefore|hence),?)\s*(?:choose|select|pick)\b",
            # other languages
            r"\bantwort(?:option|möglichkeit)?\b(?:[^.?!\n:]{0,30}?\b(?:ist|lautet|wäre)\b|\s*:)|\b(?:richtig|korrekt)\s+ist\b|\bich\s+(?:wähle|nehme)\b",
            r"\b(?:réponse|option|proposition)\b(?:[^.?!\n:]{0,30}?\b(?:est|serait)\b|\s*:)|\bje\s+choisis\b",
            r"\b(?:respuesta|opción)\b(?:[^.?!\n:]{0,30}?\b(?:es|sería)\b|\s*:)|\b(?:elijo|escojo)\b",
            r"\b(?:resposta|alternativa|opção)\b(?:[^.?!\n:]{0,30}?\s(?:é|seria)\b|\s*:)|\bescolho\b",
            r"\b(?:risposta|opzione)\b(?:[^.?!\n:]{0,30}?\s(?:è|sarebbe)\b|\s*:)|\bscelgo\b",
            r"\bantwoord\b(?:[^.?!\n:]{0,20}?\bis\b|\s*:)|\bodpowied[źz]\b(?:\s+to\b|\s*:)|\bcevap\b\s*:?",
            r"\bответ\b(?:[^.?!\n:]{0,20}?\s-|\s*:|(?=\s+\(?(?-i:[A-Z])\b))|\bправильн\w+\s+(?:ответ|вариант)\b(?:\s*[:-])?",
            r"đáp\s+án(?:\s+đúng)?(?:\s+là|\s*:)|\bjawaban(?:nya)?\b(?:[^.?!\n:]{0,20}?\badalah\b|\s*:)",
            r"(?:答案|正确选项|正確選項)(?:应该|應該|应|應)?(?:是|为|為|选|選)?\s*:?|(?:故|应该|應該|应|應|所以|因此|我)(?:选择|選擇|选|選)|"
            r"(?:^|(?<=[。,\n]))\s*(?:选择|選擇|选|選)(?!项|項)",
            r"(?:答え|正解|回答|解答)(?:は|:)|(?:정답|답|답변)(?:은|는|\s*:)|(?:الإجابة|الجواب)[^.\n:]{0,20}?(?:هي|هو|:)|"
            r"(?:सही\s+)?उत्तर(?:\s*:)?",
        ]
    ),
    _FLAGS,
)
"""What an answer follows."""

WRONG_KIND = re.compile(
    r"(?:\b(?:wrong|incorrect|false|bad|other|another|no|not|eliminated|tempting|none|neither|any|every|each|which|"
    r"falsche|fausse|mauvaise|incorrecta|errada|sbagliata|неправильн\w+)\s+|错误|錯誤|不)$",
    _FLAGS,
)
"""Before what `STATES` matches: "the wrong answer is A" gives no answer."""
UNSTATED = re.compile(
    r"\b(?:choices|options|wrong|incorrect|false|not|eliminated|excluded|unlikely|between|neither)\b|n't\b", _FLAGS
)
"""Within what `STATES` matches: "the option that is wrong is"."""

POINTS = re.compile(
    r"\b(?:it|that|this|which|so|therefore|thus|hence|finally|ergo|also|conclusion|only|leaves|leaving|probably|likely|"
    r"I\s+(?:think|believe|guess|suspect)|definitely|certainly|c'est|es\s+ist)\b(?:\s*,|\s*:)?(?:\s+it)?"
    rf"(?:\s*(?:'s|is|was|must\s+be|should\s+be|has\s+to\s+be|would\s+be|can\s+only\s+be))?(?:\s+{_ADVERB})?"
    r"|(?:=>|-+>|→|⇒|∴|是)",
    _FLAGS,
)
"""What a letter follows that ends its clause: "so it must be (C)."""
ENDS_CLAUSE = re.compile(r"\s*(?:[.,;!)\n。]|$|because\b|since\b|as\b|for\b)", _FLAGS)

CONFIRMS = re.compile(
    r"(?:\s*\([^()\n]{1,60}\)|\s*\"[^\"\n]{1,60}\")?\s+(?:is|was|would\s+be|must\s+be|should\s+be|seems(?:\s+to\s+be)?|"
    rf"looks|has\s+to\s+be)\s+(?:{_ADVERB}\s+)?(?:(?:the|a|my)\s+)?(?:(?:only|most|one|single|best|more|clearly|my|final)\s+)*"
    r"(?:correct|right|best|true|answer|accurate|appropriate|fitting|suitable)\b|\s+(?:fits|matches)\s+best\b|"
    r"\s+ist\s+(?:die\s+)?(?:richtig|korrekt)|\s+est\s+(?:la\s+)?(?:bonne|correcte?)|\s+es\s+(?:la\s+)?correct|"
    r"\s+é\s+(?:a\s+)?corret|\s+è\s+(?:la\s+risposta\s+)?(?:corrett|giust)|\s*(?:是)?(?:正确|正確|对的|對的)|が正解|が正しい|\s*[:=-]\s*(?:correct|right|true|yes)\b|\s*(?:✓|✔|✅)|"
    r"\s+верн\w+|\s+правильн\w+",
    _FLAGS,
)
"""What follows a letter and makes it the answer: "is the correct one"."""

DENIES_BEFORE = re.compile(
    r"(?:(?:\b|(?<=\w)(?=n't))(?:"
    r"(?:not|n't|never)\s+(?:think|believe|suppose|guess|say|claim|see|choose|pick|select|answer|go\s+with)(?:\s+that)?"
    r"(?:\s+(?:it|this|that|there|(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:answer|option|choice)))?"
    r"(?:\s*(?:is|'s|are|was|would\s+be))?|"
    r"not|isn't|aren't|wasn't|cannot\s+be|can't\s+be|never|rather\s+than|instead\s+of|unlike|"
    r"rul(?:e|es|ed|ing)\s+out|eliminat(?:e|es|ed|ing)|exclud(?:e|es|ed|ing)|reject(?:s|ed|ing)?|discard(?:s|ed|ing)?|"
    r"dismiss(?:es|ed|ing)?|neither|nicht|kein(?:e|en)?|weder|n'est\s+pas|pas|ni|no\s+es|não\s+é|non\s+è|niet|no|"
    r"не)(?!\s+only\b)|不是|并非|並非|排除|不选|不選)"
    r"(?:\s+(?:be|to\s+be|among|in|any\s+of|one\s+of|possibly|necessarily|really|simply|just))*"
    r"(?:\s*(?:the|(?-i:an?)|option|options|choice|letter|answer|la|le|die|der|das|el|il|ein|eine|einen|un|une|una|um|uma|"
    r"opción|opção|选项|選項|вариант)\b)*\s*",
    _FLAGS,
)
"""Before a denied letter or text; a list of letters ("not A, B or C") is denied whole."""
LISTED = re.compile(
    r"\s*(?:,\s*(?:or|nor|and)?|/|\bor\b|\bnor\b|\band\b|\bnoch\b|\bni\b|或|和)\s*"
    r"(?:(?:option|the|(?-i:an?))\s+)?",
    _FLAGS,
)
BOTH_DENIED = re.compile(
    r"\s+(?:are|were|(?:can|could|do)(?:not|n't|\s+not))(?:\s+(?:be|both|all))*\s+(?:wrong|incorrect|false|not|excluded|"
    r"eliminated|impossible|ruled\s+out|out\b)|\s+sind\s+(?:beide\s+)?(?:falsch|nicht)|\s*都(?:不|错|是错)",
    _FLAGS,
)
"""Behind a list of letters that are all denied: "are wrong"."""
DENIES_AFTER = re.compile(
    r"(?:\s*\([^()\n]{1,60}\)|\s*\"[^\"\n]{1,60}\")?"
    r"(?:\s+(?:is|are|was|were|would\s+be|must\s+be|seems|looks)\s+(?:\w+ly\s+|also\s+|both\s+)?(?:the\s+|an?\s+)?(?:wrong|"
    r"incorrect|false|not|excluded|eliminated|impossible|ruled\s+out|out\b|unlikely|mistaken|untrue)|"
    r"\s+(?:isn't|aren't|wasn't|cannot|can't|can\s+not|doesn't|does\s+not|do\s+not|don't|fails|could\s+not|couldn't)\b|"
    r"\s+(?:ist|sind)\s+(?:falsch|nicht)|\s+(?:est|sont)\s+(?:fausse?|incorrecte?)|\s+n'est\s+pas|\s+(?:no\s+es|es\s+"
    r"incorrect)|\s+(?:não\s+é|está\s+errad)|\s+(?:non\s+è|è\s+sbagliat)|\s+(?:неверн|неправильн)|"
    r"\s*[:=-]\s*(?:wrong|incorrect|false|no\b|✗|❌|✘)|\s*(?:✗|❌|✘)|"
    r"\s*(?:不对|不對|不正确|不正確|错误|錯誤|是错|是錯|错|不符合))",
    _FLAGS,
)
"""Behind a denied letter: "is wrong", "does not fit"."""

TURN = re.compile(
    r"\b(?:no|wait|actually|correction|sorry|oops|rather|instead|however|but|on\s+second\s+thoughts?|looking\s+again|"
    r"re-?check\w*|reconsider\w*|re-?examin\w*|in\s+fact|therefore|thus|hence|so|finally|final|conclusion|overall|"
    r"scratch\s+that|i\s+mean|doch|nein|non|mais|pero|mas|perciò|quindi|donc|daher|also|нет)\b|"
    r"不对|不對|不,|等等|因此|所以|综上|最终|しかし|したがって",
    _FLAGS,
)
"""Takes back, or sums up, what was answered before."""
OPEN = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|alternatively|either|might|could|may|oder|ou|vielleicht|peut-être|quizás?|и́?ли|или)"
    r"\b|或|也许|可能",
    _FLAGS,
)
"""Leaves open which of two answers is meant."""
HYPOTHETICAL = re.compile(r"\s*(?:if|suppose|assuming|had|were|even\s+if|wenn|si|falls|如果)\b", _FLAGS)
DECLINES = re.compile(
    r"\b(?:cannot|can't|can\s+not|unable\s+to|not\s+able\s+to|won't|will\s+not|don't|do\s+not|couldn't|could\s+not)\b"
    r".{0,40}?\b(?:answer|tell|determine|assist|help|say|know|see|identify|view|access)|"
    r"\b(?:none\s+of\s+(?:the|these|them)|not\s+enough\s+information|impossible\s+to\s+(?:say|tell|know|determine))",
    _FLAGS,
)
"""Where a completion does so, an option's text that it mentions is no answer."""

OPTION = re.compile(
    r"(?:\b(?:option|choice|alternative|möglichkeit|opci[oó]n|opção|alternativa|letra|lettre|proposition|opzione|lettera|"
    r"optie|вариант)\b|选项|選項|選択肢|보기)\s*[:#]?\s*",
    _FLAGS,
)
AFTER_ALONE = re.compile(
    r"\s*(?:$|[.):;,!\](。]|[-=]+>?\s|(?:because|since|as|for|or|and|not|only|over)\b|/|です|选项|選項)", re.IGNORECASE
)
"""What follows a letter that stands for itself at the start of a line."""
NEVER_AFTER_ARTICLE = re.compile(
    r"\s+(?:an?|because|since|and|or|but|for|as|which|that|is|was|has|the|this|these|it|there|we|he|she|they|i|if|of|on|at|by|over|rather|instead|alone|again|too|here|"
    r"from|to|than|so|while|when|where|seems|looks|fits|matches|shows|would|must|should|can|cannot|correctly|est|ist|es|é|"
    r"è|weil|porque|parce)\b",
    _FLAGS,
)
"""A letter A before one of these words is no article."""
VERB_AFTER_PRONOUN = re.compile(r"\s+[a-z]|'[a-z]")
