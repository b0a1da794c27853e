"""Pictures of what a detector saw and found, and of what training sees."""
