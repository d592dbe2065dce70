"""Super-resolution: small students of Real-ESRGAN."""
