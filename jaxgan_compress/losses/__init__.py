"""Losses: scalars from arrays; lower is better, weights are the method's."""
