"""The foundation teacher: Grounding-DINO, SAM2 and what joins them."""
