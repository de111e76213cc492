"""The stages, one module each: `stages/x.py` holds `run_x(config, inputs, context) -> outputs` of `contracts/x.py`.

`__main__` is the entry of a stage's own process, `pretraining` an old address of `aot_core.recipes`. What several
stages share, or what would clutter a stage's recipe, is in `helpers/`. Attacker, Defender and evaluation do not import
each other; they meet here.
"""
