"""The vision-language model: prompts, client, answer parsing, and a launcher for a local vLLM."""
