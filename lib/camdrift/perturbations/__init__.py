"""Changes to an image: an attack's perturbation, noise of its size, controls, strengths."""
