"""What lies between antennas: path loss, shadowing, fading. One file per model."""
