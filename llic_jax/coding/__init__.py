"""Symbols to bytes and back: tables of probabilities and what range coders need."""
