"""Planning and running trainings and evaluations, here or on a Ray cluster."""
