"""Where events go: the journal, or a person's terminal."""
