"""How class-activation maps drift when an image is attacked, against the same amount of noise."""

import os

# On some processors MKL sums the rows of a matrix product in an order that depends on their place
# in the batch. This keeps an image's numbers the same whatever images stand beside it. MKL reads it
# at its first product, not when torch is imported.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
