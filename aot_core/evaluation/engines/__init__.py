"""Who answers: transformers in this process, vLLM started for it, or any OpenAI-compatible endpoint; one protocol."""
