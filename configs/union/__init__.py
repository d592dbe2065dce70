"""The union: students pruned online, taught by a teacher and by the pairs themselves."""
