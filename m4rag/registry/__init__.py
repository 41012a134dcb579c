"""The record: what ran, on what, with which result, in MLflow."""
