"""Knowledge distillation, Aguinaldo et al. 2019."""
