"""Which settings of a network go together: asked before anything is built, and so without torch."""

# For each (name, variant): its smallest, largest and usual depth.
DEPTHS = {
    ("unet", "default"): (1, 8, 4),
    ("resnet34_unet", "default"): (2, 5, 5),
    ("resnet34_unet", "report"): (6, 6, 6),
}
STEMS = ("7x7", "3x3")


def check_network(name: str, variant: str, depth: int, width: int, encoder_weights: str, stem: str, stem_stride: int) -> None:
    """Refuse settings of which no network can be built; arguments as of `models.build_model`, name and variant known ones.

    Raises:
        ValueError: names the first setting that does not go with the others, and what it must be.
    """
    smallest, largest, _ = DEPTHS[name, variant]
    free = (name, variant) == ("resnet34_unet", "default")
    of_resnet34 = free and width == 64 and stem == "7x7"
    depths = f"{smallest} to {largest}" if smallest < largest else f"{smallest}"
    for setting, value, allowed, words in (
        ("depth", depth, smallest <= depth <= largest, f"{depths} for {name} ({variant})"),
        (
            "encoder_weights",
            encoder_weights,
            of_resnet34 or not encoder_weights,
            "empty except for resnet34_unet (default) with width 64 and stem 7x7: "
            f"here it is {name} ({variant}) with width {width} and stem {stem}",
        ),
        ("stem", stem, stem in STEMS and (free or stem == "7x7"), "7x7, or 3x3 for resnet34_unet (default)"),
        ("stem_stride", stem_stride, stem_stride in (1, 2) and (free or stem_stride == 2), "2, or 1 for resnet34_unet (default)"),
    ):
        if not allowed:
            raise ValueError(f"parameter {setting} is {value!r}, but it must be {words}")
