"""What a training leaves behind: checkpoints to go on from, metrics, and pictures."""
