"""Training: the loss, the step, the loop, and the folder of a run."""
