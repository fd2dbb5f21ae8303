"""Write golden/curves.npz: the loss curves of the networks as torch trains them.

Run it where torch 2.13.0 and scikit-learn are installed, in tests/:

    python -m parity.make_curves

``<network>, <optimizer>, <dtype>`` holds the losses of each step; with ``, accuracy after 50``
behind it, the share of the test digits that the network reads rightly after 50 steps.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity.networks import STEPS, TRAININGS, accuracy, held_out, train_torch

CURVES = Path(__file__).with_name("golden") / "curves.npz"


def scores(model: Any, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(images)).numpy()


def main() -> None:
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {}
    for name, optimizer in TRAININGS:
        for dtype, steps in STEPS.items():
            case = f"{name}, {optimizer}, {dtype}"
            for after in sorted({steps, *STEPS.values()} if name == "cnn" else {steps}):
                losses, model = train_torch(name, optimizer, dtype, after)
                found = accuracy(name, scores(model, held_out(dtype)[0]))
                arrays[f"{case}, accuracy after {after}"] = found
                print(f"{case}: {losses[0]:.3f} to {losses[-1]:.3f}, accuracy {found:.1%}")
            arrays[case] = losses[:steps]
    about = {"torch": torch.__version__, "script": f"tests/parity/{Path(__file__).name}"}
    np.savez_compressed(CURVES, about=json.dumps(about), **arrays)
    print(f"{CURVES.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
