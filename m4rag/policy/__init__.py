"""The retrieval policy: when to retrieve for one model, learned from a run, applied when questions are served."""
