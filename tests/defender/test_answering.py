import pytest
import torch

from aot_core.answers import letter_of
from aot_core.contracts.protocols import is_cut_off
from aot_core.defender.answering import Defender, chat_prompt


@pytest.fixture(scope="module")
def defender(untrained) -> Defender:
    model, processor = untrained
    return Defender(model, processor, batch_size=5, max_new_tokens=6)


def test_greedy_answers_are_those_of_plain_generation(defender: Defender, asked) -> None:
    images, questions = zip(*asked, strict=True)
    answers = defender.answer(images, questions, samples=2, temperature=0.0, seed=0)
    for image, question, given in zip(images, questions, answers, strict=True):
        prompt = chat_prompt(defender.processor, question.prompt)
        inputs = defender.processor(images=[image], text=[prompt], return_tensors="pt")
        defender.model.model.rope_deltas = None
        tokens = defender.model.generate(**inputs, do_sample=False, max_new_tokens=6)[:, inputs.input_ids.shape[1] :]
        expected = defender.processor.batch_decode(tokens, skip_special_tokens=True)[0]
        assert given == [expected, expected]


def test_what_the_limit_cuts_off_is_told_and_is_no_answer(untrained, asked) -> None:
    """The untrained model hardly ever ends by itself: with its favourite word as the end of a turn it does at once."""
    model, processor = untrained
    images, questions = zip(*asked[:4], strict=True)
    cut = Defender(model, processor, max_new_tokens=3).answer(images, questions, samples=1, temperature=0.0, seed=0)
    assert all(is_cut_off(text) and letter_of(text, ("yes", "no")) is None for (text,) in cut)
    told = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = list(range(len(processor.tokenizer)))
    try:
        ended = Defender(model, processor).answer(images, questions, samples=2, temperature=1.0, seed=0)
    finally:
        model.generation_config.eos_token_id = told
    assert not any(is_cut_off(text) for texts in ended for text in texts)


def test_a_seed_decides_the_samples_and_leaves_the_global_generator_alone(defender: Defender, asked) -> None:
    images, questions = zip(*asked, strict=True)
    before = torch.random.get_rng_state()
    first, again, other = (
        defender.answer(images, questions, samples=3, temperature=1.0, seed=seed) for seed in (5, 5, 6)
    )
    assert first == again != other
    assert [len(one) for one in first] == [3] * len(questions)
    assert any(len(set(one)) > 1 for one in first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_letter_logprobs_are_those_of_the_forced_prefix(defender: Defender, asked) -> None:
    images, questions = zip(*asked, strict=True)
    given = defender.letter_logprobs(images, questions)
    for image, question, letters in zip(images, questions, given, strict=True):
        prompt = chat_prompt(defender.processor, question.prompt) + r"\boxed"
        inputs = defender.processor(images=[image], text=[prompt], return_tensors="pt")
        with torch.no_grad():
            logprobs = defender.model(**inputs).logits[0, -1].log_softmax(-1)
        assert list(letters) == list("ABCDEFGH"[: len(question.options)])
        for letter, logprob in letters.items():
            token = defender.processor.tokenizer.convert_tokens_to_ids("{" + letter)
            assert logprob == pytest.approx(logprobs[token].item(), abs=1e-4)


def test_bad_arguments_name_the_field(defender: Defender, asked) -> None:
    image, question = asked[0]
    with pytest.raises(ValueError, match="2 images but 1 questions"):
        defender.answer([image, image], [question], samples=1, temperature=0.0, seed=0)
    with pytest.raises(ValueError, match="samples"):
        defender.answer([image], [question], samples=0, temperature=0.0, seed=0)
    with pytest.raises(ValueError, match="temperature"):
        defender.answer([image], [question], samples=1, temperature=-1.0, seed=0)
    assert defender.answer([], [], samples=3, temperature=1.0, seed=0) == []


def test_an_offloaded_defender_visits_its_device_and_answers_alike(untrained, asked, monkeypatch) -> None:
    """Without a second device here, the moves are what can be seen of it."""
    model, processor = untrained
    images, questions = zip(*asked[:4], strict=True)
    stays = Defender(model, processor, max_new_tokens=4)
    moves: list[str] = []
    move = model.to
    monkeypatch.setattr(model, "to", lambda place: moves.append(str(place)) or move(place))
    visits = Defender(model, processor, max_new_tokens=4, offload=True)
    monkeypatch.setattr(visits, "_device", torch.device("cpu:0"))
    assert moves == ["cpu"]
    how = {"samples": 2, "temperature": 1.0, "seed": 0}
    assert visits.answer(images, questions, **how) == stays.answer(images, questions, **how)
    assert visits.letter_logprobs(images, questions) == stays.letter_logprobs(images, questions)
    with pytest.raises(ValueError, match="give one image a question"):
        visits.answer(images, questions[:1], **how)
    assert moves == ["cpu"] + ["cpu:0", "cpu"] * 3, "back on the CPU after an error, too"
