"""A mirror of a hub of models: `/hf/` of the gateway, for clients of the Hugging Face hub (docs/models.md)."""
