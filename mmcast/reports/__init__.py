"""Pages, pictures and cards for people."""
