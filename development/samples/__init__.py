"""Two sample databases to join: a small made-up shop, and every flight that left New York City in 2013."""
