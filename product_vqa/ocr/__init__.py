"""A second reader: what an OCR engine sees in an image, and which of it may answer a question about an attribute."""
