"""Programs of networks, as JAX traces them, and what they say of channels."""
