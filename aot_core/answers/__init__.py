r"""From a completion to the answer that it gives: the one parser of training, efficacy, `aot attack`, evaluation,
benchmarks and the registered model. It imports `contracts` and nothing that loads torch.

    completion --thoughts--> what was said --boxes, statements, mentions--> the letter of one option, or None

The grammar, in the order in which it is applied:

1. **Cut off.** A completion that the length limit ended (`contracts.protocols.Completion.cut_off`) gives no answer,
   whatever it holds: what it would have gone on to say is not known. So it counts as unreadable.
2. **Thoughts** are not said. All up to the last closing tag (`</think>` and its kin) is thought, also where a chat
   template holds the opening tag; an opening tag behind the last closing one is a thought that was never ended: no
   answer.
3. **Boxes** decide: `\boxed{B}`, whatever dresses the letter (`\text`, `\mathbf`, `**`, `$`, brackets, "option"), and
   sloppy ones (`boxed (b)`). A box may hold an option's whole text instead of its letter.
4. **Stated answers** come next: what stands behind "answer is", "Answer:", "I choose", in <answer> tags, or before "is
   correct" (also in other languages), as a letter or as an option's whole text.
5. **"Option B"** counts only where nothing above is there.
6. **A letter alone** at the start of a line ("B", "(B)", "B. a vase", "B, because ...") comes next. A letter within a
   sentence is a mention, and no answer.
7. **An option's whole text**, said anywhere, comes last, unless the completion declines to answer.

In each of these:

- *An article is no option.* A small "a" before a word is one; so is a capital "A" before a word in lower case, unless
  that word ("because", "is", "or") cannot follow an article. The English "I" before a verb is no option either. A
  letter in lower case counts in boxes and statements alone.
- *Denied options* are not given: "not A", "A is wrong", "rather than A", "neither A nor B", and options' texts alike.
  Nor is what a question or a sentence that begins with "if" says.
- *Several answers* of one form contradict each other and give None, unless the later one takes the earlier one back:
  behind a turn ("no", "wait", "therefore", "final"), or in a later sentence of its own. The last stated answer counts.
  "A or B" names two options, and answers nothing.
- *Only what is on offer* is an answer. A box that holds no option leaves statements (4) to be read, and nothing else.

Yes/no questions without options (`parse_yes_no`) follow the same order, with words instead of letters. Guesses are not
made: better None than a letter that was only mentioned.
"""

from aot_core.answers.boxes import is_exactly_boxed
from aot_core.answers.choices import extract_letter, letter_of, parse_choice
from aot_core.answers.endings import completions_of
from aot_core.answers.thoughts import without_thoughts
from aot_core.answers.yes_no import parse_yes_no

__all__ = [
    "completions_of",
    "extract_letter",
    "is_exactly_boxed",
    "letter_of",
    "parse_choice",
    "parse_yes_no",
    "without_thoughts",
]
