"""Results as tables: resampling, flags, factors of drift, and figures drawn from them."""
