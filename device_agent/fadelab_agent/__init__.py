"""What runs on a device: the task, local training and the uplink."""
