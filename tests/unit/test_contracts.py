"""The import contracts of pyproject.toml name exactly the modules that promise something."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules_that_say_pure() -> set[str]:
    found = set()
    for path in (ROOT / "dnc_async").rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if re.search(r"\bPURE\b", docstring):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.add(name.removesuffix(".__init__"))
    return found


def test_a_module_says_pure_if_and_only_if_a_contract_lists_it() -> None:
    """A package that is listed speaks for all of its modules."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    listed = [name for each in contracts if each["type"] == "forbidden" for name in each["source_modules"]]
    assert len(set(listed)) == len(listed), "listed twice"
    assert modules_that_say_pure() == set(listed)
