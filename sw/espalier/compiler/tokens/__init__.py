"""From a token graph (`espalier.tokens`) to a program: transformers."""
