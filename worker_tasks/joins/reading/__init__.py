"""Reading documents from MongoDB and encoding them, with progress reports; shared by both join methods."""
