"""The recipe of `aot-tiny-edit`, from nothing to a shipped folder: `python -m aot_core.recipes`.

Three phases, each seeded and saved when it is finished, so that a killed run goes on with the phase it was in: the
autoencoder (`OUTPUT/vae`); text encoder and transformer on its latents, which learn to draw what they are told
(`OUTPUT-drawing`); then, from there, what a question's distractors are (`OUTPUT`). Then the editor is measured and its
model card written. Single-threaded it takes about 40 minutes on one busy core.
"""

import hashlib
import json
from pathlib import Path

from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from aot_core.attacker.tiny_autoencoder import TinyAutoencoder
from aot_core.attacker.tiny_edit import TinyEditPipeline, save_pipeline
from aot_core.contracts.base import Frozen
from aot_core.recipes.editor_autoencoder import AutoencoderRecipe, train_autoencoder
from aot_core.recipes.editor_measure import EditorSkills, contact_sheet, measure
from aot_core.recipes.editor_pairs import PairRecipe
from aot_core.recipes.editor_transformer import TransformerRecipe, train_transformer
from aot_core.tracking.protocol import Tracker


class Recipe(Frozen):
    autoencoder: AutoencoderRecipe = AutoencoderRecipe()
    transformer: TransformerRecipe = TransformerRecipe()
    questions: TransformerRecipe = TransformerRecipe(
        steps=1500,
        pool=10_000,
        learning_rate=1e-3,
        pairs=PairRecipe(open_share=0.6, question_share=0.9, semantic_share=0.7),
    )
    """Then the questions: the editor learns what a distractor of a question is, and keeps painting other things too."""
    measured_pairs: int = 3000
    """Enough that each kind of edit is asked for more than a thousand times."""


def pretrain(output: Path, recipe: Recipe, seed: int, tracker: Tracker) -> EditorSkills:
    """Make, measure and describe the editor in `output`. Finished phases that stand there are taken over."""
    output.mkdir(parents=True, exist_ok=True)
    vae = _autoencoder_phase(output, recipe.autoencoder, seed, tracker)
    drawing = output.with_name(output.name + "-drawing")
    if not (output / "model_index.json").is_file():
        if not (drawing / "model_index.json").is_file():
            _flow_phase(drawing, recipe.transformer, vae, seed, tracker, None)
        _flow_phase(output, recipe.questions, vae, seed + 1, tracker, drawing)
    pipeline = TinyEditPipeline.from_pretrained(output, local_files_only=True)
    skills = measure(pipeline, recipe.measured_pairs, seed + 10_000)
    contact_sheet(pipeline, seed + 20_000).save(output / "edits.png")
    (output / "README.md").write_text(model_card(output, recipe, seed, skills))
    return skills


def model_card(folder: Path, recipe: Recipe, seed: int, skills: EditorSkills) -> str:
    """The model card: what it is, how it was made, its weights' hashes and measured skills."""
    hashes = "\n".join(
        f"| `{path.relative_to(folder)}` | {path.stat().st_size} | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |"
        for path in sorted(folder.rglob("*.safetensors"))
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in skills.rows())
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: image-to-image
---
# aot-tiny-edit

A small rectified-flow image editor for the procedural world of `aot_core.worlds.shapes.world`: 64 x 64 pixels, an
autoencoder to 8 x 8 latents, a diffusion transformer over 2 x 2 packed latents that sees source and
instruction. It adds, removes and replaces coloured shapes; where the instruction leaves the content open it
chooses.

    from aot_core.attacker.tiny_edit import TinyEditPipeline, save_pipeline
    pipeline = TinyEditPipeline.from_pretrained(folder)
    pipeline(image, "Add a red ring at row 2, column 3.").images[0]

## Measured
On {skills.pairs} pairs of held-out scenes (1 to {recipe.transformer.pairs.max_edits} edits each,
{skills.edits} edits; 8 steps).

| figure | value |
|---|---|
{rows}

## Recipe
`python -m aot_core.recipes aot-tiny-edit --output DIR --seed {seed}`: three
phases, about 40 minutes on one busy core.

```json
{recipe.model_dump_json(indent=1)}
```

## Weights
| file | bytes | sha256 |
|---|---|---|
{hashes}
"""


def _autoencoder_phase(output: Path, recipe: AutoencoderRecipe, seed: int, tracker: Tracker) -> TinyAutoencoder:
    folder = output / "vae"
    if not (folder / "config.json").is_file():
        vae, curve = train_autoencoder(recipe, seed, tracker)
        _write_json(folder / "curve.json", curve)
        vae.save_pretrained(folder, safe_serialization=True)
    return TinyAutoencoder.from_pretrained(folder, local_files_only=True).eval()  # pyright: ignore


def _flow_phase(
    folder: Path, recipe: TransformerRecipe, vae: TinyAutoencoder, seed: int, tracker: Tracker, start: Path | None
) -> None:
    """Train text encoder and transformer, from `start`'s if given, and save the whole pipeline."""
    begun = None
    if start is not None:
        before = TinyEditPipeline.from_pretrained(start, local_files_only=True)
        begun = (before.text_encoder, before.transformer)
    text, flow, tokenizer, curve = train_transformer(recipe, vae, seed, tracker, begun)
    pipeline = TinyEditPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        transformer=flow,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=recipe.time_shift),
    )
    save_pipeline(pipeline, folder)
    _write_json(folder / "transformer" / "curve.json", curve)


def _write_json(path: Path, curve: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([round(value, 5) for value in curve]) + "\n")
