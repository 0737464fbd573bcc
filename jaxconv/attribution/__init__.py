"""What a network looks at: maps for any function, their relatives, and training on them.

backpropagation -> deconvolutional networks -> saliency -> guided backpropagation -> Grad-CAM -> guided attention.
"""

from jaxconv.attribution.cams import grad_cam, grad_cam_plus_plus, guided_grad_cam, hires_cam, layer_cam
from jaxconv.attribution.deconvolution import MaxPool, deconvnet_layers, max_pool, unpool
from jaxconv.attribution.gain import attention, gain_loss, masked
from jaxconv.attribution.gradients import (
    completeness,
    deconvnet,
    guided_backprop,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from jaxconv.attribution.metrics import cascade, deletion, energy_in_mask, insertion, pointing_game, sensitivity
from jaxconv.attribution.occlusion import occlusion
from jaxconv.attribution.pictures import contact_sheet, overlay, signed
from jaxconv.attribution.rules import with_relu_rule

__all__ = [
    "MaxPool",
    "attention",
    "cascade",
    "completeness",
    "contact_sheet",
    "deconvnet",
    "deconvnet_layers",
    "deletion",
    "energy_in_mask",
    "gain_loss",
    "grad_cam",
    "grad_cam_plus_plus",
    "guided_backprop",
    "guided_grad_cam",
    "hires_cam",
    "input_x_gradient",
    "insertion",
    "integrated_gradients",
    "layer_cam",
    "masked",
    "max_pool",
    "occlusion",
    "overlay",
    "pointing_game",
    "saliency",
    "sensitivity",
    "signed",
    "smoothgrad",
    "unpool",
    "with_relu_rule",
]
