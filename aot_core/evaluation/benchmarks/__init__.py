"""Public benchmarks from local files: readers, prompts, answers, and each benchmark's own rule of scoring."""
