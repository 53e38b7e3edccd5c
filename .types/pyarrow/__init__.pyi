# pyarrow ships no types, and its compiled half hides names that exist from pyright: here all of it is Any, for both.
from typing import Any

def __getattr__(name: str) -> Any: ...
