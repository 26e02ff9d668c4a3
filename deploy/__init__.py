"""Getting a bundle onto a device, and back off it."""
