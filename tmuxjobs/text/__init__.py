"""From a log's bytes to what a person would have read: clean text, pages, lines that match. Knows files, not jobs."""
