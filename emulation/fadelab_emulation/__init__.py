"""The radio world and the kernel that obeys it."""
