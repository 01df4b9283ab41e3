"""pythae's side of `peers.py`, run by a Python that has it: trains one VAE and leaves its weights and times.

python _pythae_run.py SPEC.json    {images, weights, out, hidden, latent, batch, epochs, lr, seed, threads}"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from safetensors.torch import load_file, save_file
from torch import nn


def main(spec: dict[str, Any]) -> None:
    torch.set_num_threads(spec["threads"])
    wide, narrow, d = *spec["hidden"], spec["latent"]

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Flatten(),
                nn.Linear(784, wide),
                nn.ReLU(),
                nn.Linear(wide, narrow),
                nn.ReLU(),
                nn.Linear(narrow, 2 * d),
            )

        def forward(self, x: torch.Tensor) -> ModelOutput:
            mu, logvar = self.net(x).chunk(2, -1)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(d, narrow), nn.ReLU(), nn.Linear(narrow, wide), nn.ReLU(), nn.Linear(wide, 784), nn.Sigmoid()
            )

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z).reshape(-1, 1, 28, 28))

    class Clock(TrainingCallback):
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.at.append(time.monotonic())

        def on_train_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.last = time.monotonic()

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            self.at.append(self.last)

    x = load_file(spec["images"])["x"]
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=d, reconstruction_loss="bce")
    model, clock = VAE(config, encoder=Encoder(), decoder=Decoder()), Clock()
    model.load_state_dict(load_file(spec["weights"]))
    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainer(
            model,
            BaseDataset(x, torch.zeros(len(x))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                num_epochs=spec["epochs"],
                learning_rate=spec["lr"],
                per_device_train_batch_size=spec["batch"],
                seed=spec["seed"],
                no_cuda=True,
            ),
            callbacks=[clock],
        )
        trainer.train()
    save_file({k: v.detach().contiguous() for k, v in model.state_dict().items()}, spec["out"])
    seconds = [b - a for a, b in zip(clock.at[::2], clock.at[1::2], strict=True)]
    with open(spec["out"] + ".json", "w") as f:
        json.dump(seconds, f)


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        main(json.load(f))
