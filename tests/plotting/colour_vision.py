"""How colours look to people who lack one kind of cone, and how far apart they then are.

Source: Machado, Oliveira & Fernandes 2009, "A physiologically-based model for simulation of color
vision deficiency", severity 1.0; CIE 1976 L*a*b*.
"""

import numpy as np

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
WHITE = XYZ.sum(axis=1)


def linear(colour):
    """Return linear RGB, shape (..., 3), of sRGB in [0, 1]."""
    colour = np.asarray(colour, float)
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def lab(colour, vision="normal"):
    """Return L*a*b* of sRGB colours as someone with this vision sees them."""
    seen = np.clip(linear(colour) @ VISIONS[vision].T, 0, 1)
    ratio = seen @ XYZ.T / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def contrast(one, other):
    """Return the ratio of luminances as WCAG 2 defines it, 1 to 21."""
    light, dark = sorted((linear(c) @ XYZ[1] for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
