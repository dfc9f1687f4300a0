"""Features: numbers that are measured on one image alone, never beside its clean twin.

A score (`scores`) needs the clean map and so is no feature: a detector works on features only, and
cannot see the clean image by accident. One module a group of features; `measure` joins them.
"""
