"""From clips, folders and generators to frame pairs on disk, and back as training items."""
