"""How class-activation maps drift when an image is attacked, against the same amount of noise."""
