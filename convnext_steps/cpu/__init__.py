"""Depthwise convolutions that train fast on a CPU; everything else is PyTorch's."""
