"""Parts that stages are put together from. No stage stands here."""
