ALL_TARGETS = [
    *(PATHS.evaluation(**cell) for cell in CELLS),
    *(PATHS.data(axis, seed, "summary") for axis in SETTINGS.axes for seed in SETTINGS.seeds),
]
