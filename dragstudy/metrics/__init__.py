"""Metrics: perceptual distance, fidelity, how far the handle points landed, identity."""
