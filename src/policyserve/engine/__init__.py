"""Runs policies: batches requests, calls the policy in its thread or process, and replaces it when it breaks."""
