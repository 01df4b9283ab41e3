"""Training one trial: the loop, the engine, the checkpoint."""
