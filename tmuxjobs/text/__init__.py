"""Turns a log's bytes into what a person would have read: clean text, pages, matching lines. Knows files, not jobs."""
