"""`python -m llmrs` is the command `llmrs`."""

from __future__ import annotations

from llmrs.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
