"""Small real services that speak, or misspeak, what backends speak."""
