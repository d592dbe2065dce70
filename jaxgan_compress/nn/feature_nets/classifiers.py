"""Small networks whose features metrics compare where no published weights apply."""

from __future__ import annotations

from flax import linen as nn


class SmallClassifier(nn.Module):
  """3x3 convolutions of stride 2 (ReLU), a dense layer (the features), a dense layer (logits).

  image: [B,H,W,C] in [-1, 1] -> (logits [B,classes], features [B,features]).
  """
  classes: int = 10
  widths: tuple[int, ...] = (16, 32, 64)
  features: int = 64

  @nn.compact
  def __call__(self, image):
    x = image
    for width in self.widths:
      x = nn.relu(nn.Conv(width, (3, 3), (2, 2))(x))
    features = nn.relu(nn.Dense(self.features)(x.reshape(len(x), -1)))
    return nn.Dense(self.classes)(features), features


class SmallSegmenter(nn.Module):
  """3x3 convolutions on the image and on a quarter of its pixels, put together: a class a pixel.

  image: [B,H,W,C] in [-1, 1], H and W even -> (logits [B,H,W,classes], features [B,H,W,width]).
  """
  classes: int
  width: int = 24

  @nn.compact
  def __call__(self, image):
    conv = lambda x, **more: nn.relu(nn.Conv(self.width, (3, 3), **more)(x))
    fine = conv(image)
    coarse = conv(conv(conv(fine, strides=(2, 2)), kernel_dilation=2))
    features = conv(fine + coarse.repeat(2, 1).repeat(2, 2))
    return nn.Conv(self.classes, (1, 1))(features), features


class LeNet5(nn.Module):
  """conv 6@5x5, pool, conv 16@5x5, pool, dense 128 (the features), dense: for MNIST.

  image: [B,H,W,C] in [-1, 1] -> (logits [B,classes], features [B,128]).
  """
  classes: int = 10

  @nn.compact
  def __call__(self, image):
    x = image
    for width in (6, 16):
      x = nn.relu(nn.Conv(width, (5, 5), padding='VALID')(x))
      x = nn.max_pool(x, (2, 2), (2, 2))
    features = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
    return nn.Dense(self.classes)(features), features
