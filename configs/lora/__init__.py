"""Effects beside a base student: low-rank adapters."""
