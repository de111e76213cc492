import dataclasses

import numpy as np
import torch

from aot_core.defender.answering import chat_prompt
from aot_core.recipes.defender import visual_tokens
from aot_core.recipes.defender_lessons import DOUBT, Lesson, draw_lessons
from aot_core.recipes.defender_packing import answer_loss, pack
from aot_core.worlds.shapes import world

MIXTURE = {"where": 1.0, "list": 1.0, "existence": 1.0, "plain count": 1.0}


def test_a_packed_batch_has_the_loss_of_single_sequences(untrained) -> None:
    model, processor = untrained
    rng = np.random.default_rng(3)
    scenes = [world.random_objects(rng, n) for n in (2, 4)]
    images = [world.render(objects, world.Backdrop()) for objects in scenes]
    lessons = [draw_lessons(rng, objects, MIXTURE, 3) for objects in scenes]

    packed = pack(processor, model, lessons, world.GRID)
    certain = torch.zeros_like(packed.target_weights)
    certain[:, 0] = 1
    with torch.no_grad():
        features = visual_tokens(model, processor, images)
        loss, _ = answer_loss(model, dataclasses.replace(packed, target_weights=certain), features)

    single = []
    for image, of_image in zip(images, lessons, strict=True):
        for lesson in of_image:
            prompt = chat_prompt(processor, lesson.prompt)
            whole = processor(images=[image], text=[f"{prompt}{lesson.answer}<|im_end|>"], return_tensors="pt")
            start = processor(images=[image], text=[prompt], return_tensors="pt").input_ids.shape[1]
            with torch.no_grad():
                logprobs = model(**whole).logits[0, start - 1 : -1].log_softmax(-1)
            single.append(-logprobs.gather(1, whole.input_ids[0, start:, None])[:, 0])
    torch.testing.assert_close(loss, torch.cat(single).mean(), atol=1e-5, rtol=1e-5)


def test_doubt_is_spread_over_the_other_letters_only(untrained) -> None:
    model, processor = untrained
    lesson = Lesson("?", r"\boxed{B}", (r"\boxed{A}", r"\boxed{C}"))
    packed = pack(processor, model, [[lesson]], world.GRID)
    letter = {x: processor.tokenizer.convert_tokens_to_ids("{" + x) for x in "ABC"}
    # The answer is \boxed {B } <|im_end|>: four tokens, of which the second has rivals.
    assert packed.targets[1].tolist() == [letter["B"], letter["A"], letter["C"]]
    torch.testing.assert_close(packed.target_weights[1], torch.tensor([1 - DOUBT, DOUBT / 2, DOUBT / 2]))
    assert packed.target_weights[[0, 2, 3]].tolist() == [[1.0, 0.0, 0.0]] * 3
