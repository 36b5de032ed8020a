"""Training: fine-tuning of the dense task models; later pruning-aware and router training."""
