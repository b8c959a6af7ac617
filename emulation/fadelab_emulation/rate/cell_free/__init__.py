"""Cell-free massive MIMO: many access points serve all devices together on one band."""
