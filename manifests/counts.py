"""A count with its noun, as answers and messages write it: `1 row`, `2,000 rows`."""


def count_of(number: int, one: str, many: str = "") -> str:
    """`many` is by default `one` with an s. Either may go on: `count_of(n, "id is", "ids are")`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
