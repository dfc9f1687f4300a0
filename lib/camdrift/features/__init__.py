"""Features: what several detectors look at, of one image at a time.

A score (`camdrift.scores`) needs the clean map and so is no feature: a detector works on features
only, and cannot see the clean image by accident. What one detector alone looks at is in its file.
"""
