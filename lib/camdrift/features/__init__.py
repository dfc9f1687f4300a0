"""Features that several detectors share, of one image at a time.

A score (`camdrift.scores`) needs the clean map and so is no feature: a detector works on features
only, and cannot see the clean image by accident. The feature of a single detector is in its file.
"""
