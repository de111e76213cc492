"""Who answers: transformers in this process, or any OpenAI-compatible endpoint, behind one protocol."""
