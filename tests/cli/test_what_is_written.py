"""What the README and the examples show is what happens."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from ..conftest import Shell

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

#: A notebook's cell has top-level await.
CELL = """
import ast, asyncio, sys

names = {}
code = compile(sys.stdin.read(), "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(eval(code, names))
print(names["model"].score(names["X"], names["y"]), names["cid"])
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_of_the_readme(shell: Shell) -> None:
    """Its one example, as a notebook's cell: complete, and a model that has learned."""
    pytest.importorskip("sklearn", reason="the extra 'demo' is not installed")
    (example,) = blocks("python")
    (shell.home / "cell.py").write_text(CELL.replace("sys.stdin.read()", repr(example)), encoding="utf-8")
    done = shell.python("cell.py")
    assert done.stderr == ""
    score, cid = done.stdout.split()
    assert float(score) > 0.8
    assert cid.startswith("bafybei")


def test_extras_of_the_readme() -> None:
    """Those that it names are the package's own, and nothing is installed by a name that no index knows yet."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"\.\[([a-z0-9,]+)\]", README) for name in group.split(",")}
    assert named == set(extras)
    assert "dnc-async[" not in README


def test_shell_of_the_readme(shell: Shell) -> None:
    """Every command is one, and so is every option."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("dnc ")]
    assert len(lines) >= 4
    for line in lines:
        _, command, *words = shlex.split(line, comments=True)
        said = shell(command, "--help").stdout
        for word in words:
            assert not word.startswith("--") or word in said, line


@pytest.mark.parametrize("example", sorted((REPOSITORY / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples(shell: Shell, example: Path) -> None:
    """Each runs, and leaves nothing behind."""
    pytest.importorskip("sklearn", reason="the extra 'demo' is not installed")
    done = shell.python(example)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.9
    assert [name for name in shell.files() if (shell.home / name).is_file()] == []
