"""Layers that train fast on processors, with the mathematics and the parameters of PyTorch's."""
