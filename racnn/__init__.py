# SPDX-License-Identifier: BSD-3-Clause
"""RA-CNN on top of :func:`racnn_ops.attention_crop`: the model, its losses, its data, its training."""

from .backbones import Backbone
from .loading import load_model
from .losses import classification_loss, diversity_loss, ranking_loss
from .model import RACNN
from .output import RACNNOutput
from .pretrained import Usage

__all__ = [
    "RACNN",
    "Backbone",
    "RACNNOutput",
    "Usage",
    "classification_loss",
    "diversity_loss",
    "load_model",
    "ranking_loss",
]
