"""How prompts and answers are laid out, and that long branches, which no mask covers, attend to the same tokens."""

import dataclasses

import pytest
import torch

from aot_core.defender import sharing
from aot_core.defender.answering import chat_prompt
from aot_core.defender.shared_attention import PREFIX, make_branches
from aot_core.defender.shared_prompt_trainer import _up_to_end


def test_a_branch_sees_its_prompt_and_its_own_past() -> None:
    layout = make_branches(torch.tensor([2, 3]), prompt=3, count=2, length=2)
    assert layout.mask is not None and layout.mask.shape == (2, 1, 4, 7)
    seen = layout.mask[0, 0].int().tolist()  # the first prompt's third token is padding
    assert seen == [
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1, 1],
    ]
    assert layout.mask[1, 0, :, :3].all()
    assert make_branches(torch.tensor([2000]), prompt=2000, count=9, length=300).mask is None, "siblings outweigh it"


@pytest.mark.parametrize(
    ("implementation", "dtype", "tolerance"),
    [("sdpa", torch.float64, 1e-6), ("eager", torch.float32, 1e-4)],  # norms compute in float32
)
def test_every_attention_and_both_layouts_agree_with_plain_rows(
    implementation: str, dtype: torch.dtype, tolerance: float, untrained, asked
) -> None:
    """Hidden states of answers behind a prompt, and their gradients: plain rows, masked branches, long branches."""
    model, processor = untrained
    body = model.model.to(dtype)
    before = body.language_model.config._attn_implementation
    body.language_model.config._attn_implementation = implementation
    texts = [chat_prompt(processor, question.prompt) for _, question in asked[:2]]
    inputs = processor(images=[image for image, _ in asked[:2]], text=texts, padding=True, return_tensors="pt")
    answers = torch.arange(2 * 3 * 4).view(6, 4) + 100
    prompts = torch.arange(2).repeat_interleave(3)
    plain = body(
        input_ids=torch.cat([inputs.input_ids[prompts], answers], 1),
        attention_mask=torch.cat([inputs.attention_mask[prompts], torch.ones(6, 4)], 1),
        mm_token_type_ids=torch.cat([inputs.mm_token_type_ids[prompts], torch.zeros(6, 4)], 1).long(),
        **sharing.repeated_pixels(inputs, 3),
    ).last_hidden_state[:, -5:-1]

    def shared(masked: bool) -> torch.Tensor:
        laid = sharing.lay_out(model, inputs)
        branches = torch.cat([inputs.input_ids[prompts, -1:], answers[:, :-1]], 1)
        steps = (laid.next_position[:, None] + torch.arange(4).repeat(3)).expand(3, -1, -1)
        layout = make_branches(laid.lengths, laid.ids.shape[1], 3, 4)
        if not masked:
            layout = dataclasses.replace(layout, mask=None)
        return body(
            input_ids=torch.cat([laid.ids, branches.view(2, -1)], 1),
            attention_mask={"full_attention": None},
            position_ids=torch.cat([laid.positions, steps], 2),
            shared_prompt=layout,
            use_cache=False,
            **sharing.pixels_of(inputs),
        ).last_hidden_state.reshape(6, 4, -1)

    try:
        sharing.prepare_sharing(model)
        weight = body.language_model.layers[0].self_attn.k_proj.weight
        (expected,) = torch.autograd.grad(plain.square().sum(), weight)
        for found in (shared(masked=True), shared(masked=False)):
            torch.testing.assert_close(found, plain, rtol=tolerance, atol=tolerance)
            (gradient,) = torch.autograd.grad(found.square().sum(), weight)
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=10 * tolerance)
    finally:
        body.language_model.config._attn_implementation = before
        body.float()


def test_preparing_a_model_changes_nothing_that_is_saved_or_called(untrained, asked, tmp_path) -> None:
    model, processor = untrained
    inputs = processor(images=[asked[0][0]], text=[chat_prompt(processor, asked[0][1].prompt)], return_tensors="pt")
    model.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        before = model(**inputs).logits
        sharing.prepare_sharing(model)
        sharing.prepare_sharing(model)
        assert torch.equal(model(**inputs).logits, before)
    model.save_pretrained(tmp_path / "after")
    assert (tmp_path / "before" / "config.json").read_text() == (tmp_path / "after" / "config.json").read_text()
    assert PREFIX not in (tmp_path / "after" / "config.json").read_text()


def test_an_answer_ends_with_its_first_end_token() -> None:
    assert _up_to_end([5, 9, 7, 9], [9]) == [5, 9]
    assert _up_to_end([5, 7], [9]) == [5, 7]
