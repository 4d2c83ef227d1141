"""Photographs for training and for evaluation."""
