"""Networks whose features are compared: VGG, Inception, DRN, classifiers."""
