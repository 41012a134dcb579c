"""`python -m m4rag.cli`."""

from m4rag.cli import main

if __name__ == "__main__":  # a worker process imports this module, too
    main()
