"""Networks. A generator returns `(image, taps)`, a discriminator `({head: logits}, taps)`."""

from jaxgan_compress.nn.classifiers import LeNet5, SmallClassifier
from jaxgan_compress.nn.dcgan import DCGANDiscriminator, DCGANGenerator
from jaxgan_compress.nn.init import initialise
from jaxgan_compress.nn.layers import BatchNorm, LayerNorm, UpConv

__all__ = ['BatchNorm', 'DCGANDiscriminator', 'DCGANGenerator', 'LayerNorm', 'LeNet5',
           'SmallClassifier', 'UpConv', 'initialise']
