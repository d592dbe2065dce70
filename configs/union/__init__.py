"""The union: students pruned online, taught by a teacher, the pairs and a discriminator."""
