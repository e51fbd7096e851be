"""The published family in a user's own program, with any torch data set."""

import torch
from torch.utils.data import Dataset

from convnext_steps import Trainer, TrainingConfig, convnext_tiny


class Noise(Dataset):
    """A user's own data set: floats made on the fly."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.fetched.append(index)
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 32, 32, generator=generator), index % 100


def test_the_program_that_this_follows() -> None:
    train, test = Noise(128), Noise(131)
    model = convnext_tiny(
        in_channels=3,
        num_classes=100,
        drop_path_rate=0.0,
        layer_scale_init_value=1e-6,
        head_init_scale=1.0,
    )
    config = TrainingConfig(max_epochs=1, batch_size=128, learning_rate=4e-3, weight_decay=0.05)
    before = model.head.weight.clone()
    evaluation = Trainer(
        model=model, train_dataset=train, test_dataset=test, configs=config
    ).train()
    assert evaluation.count == 131
    assert set(test.fetched) == set(range(131))
    assert not torch.equal(model.head.weight, before)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
