def description(root: str) -> dict[str, object]:
    return {}
