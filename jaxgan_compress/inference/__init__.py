"""A trained generator at work: on folders of pictures, large pictures, and video."""

from jaxgan_compress.inference.comparison import open_networks
from jaxgan_compress.inference.demo import Demo
from jaxgan_compress.inference.engines import JaxEngine, OnnxEngine, choose_engine
from jaxgan_compress.inference.folders import Generated, Runner, generate
from jaxgan_compress.inference.gallery_page import Gallery, gallery
from jaxgan_compress.inference.networks import Network, bind, open_network
from jaxgan_compress.inference.overlap import Field, receptive_field
from jaxgan_compress.inference.recording import Recording, record_upscaler
from jaxgan_compress.inference.tiles import TiledGenerator

__all__ = ['Demo', 'Field', 'Gallery', 'Generated', 'JaxEngine', 'Network', 'OnnxEngine',
           'Recording', 'Runner', 'TiledGenerator', 'bind', 'choose_engine', 'gallery', 'generate',
           'open_network', 'open_networks', 'receptive_field', 'record_upscaler']
