"""Image sets: bundled photographs, digits, folders, torchvision; their splits and labels."""
