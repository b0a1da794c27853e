"""CornerNet: a reference detector whose parts swap, from photograph to boxes."""
