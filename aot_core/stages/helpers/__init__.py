"""Parts that stages are composed of. No stage is defined here."""
