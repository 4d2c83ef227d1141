"""Figures, tables and pages made of measurements."""
