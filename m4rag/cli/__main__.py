"""`python -m m4rag.cli`."""

from m4rag.cli import main

main()
